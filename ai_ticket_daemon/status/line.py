"""The line that ``systemctl status`` shows: how it does and why, what waits, how fast it goes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.server.ports import HealthStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.server.ports import HealthReport

RATE_WINDOW_SECONDS = 60.0
_USABLE = {HealthState.READY.value, HealthState.BUSY.value}


class Rate:
    """How fast a total grows, seen over the last ``window_seconds``."""

    def __init__(self, window_seconds: float = RATE_WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._seen: deque[tuple[float, float]] = deque()

    def per_second(self, total: float, now: float) -> float:
        """Take in the ``total`` at ``now`` (seconds, monotonic) and return the rate."""
        self._seen.append((now, total))
        # One sample from before the window stays, so that the samples span all of it.
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window:
            self._seen.popleft()
        since, before = self._seen[0]
        return (total - before) / (now - since) if now > since else 0.0


class StatusLine:
    """Makes the line.

    Args:
        report: how things stand.
        events_ended: how many events have ended since the start.
        refused_reload: the first mistake of the last reload; empty if that was applied.
    """

    def __init__(
        self,
        report: Callable[[], HealthReport],
        events_ended: Callable[[], float],
        refused_reload: Callable[[], str],
    ) -> None:
        self._report = report
        self._events_ended = events_ended
        self._refused_reload = refused_reload
        self._rate = Rate()

    def __call__(self) -> str:
        """Return the line for now."""
        rate = self._rate.per_second(self._events_ended(), trio.current_time())
        return describe(self._report(), rate, self._refused_reload())


def describe(report: HealthReport, events_per_second: float, refused_reload: str) -> str:
    """Return the line for these facts."""
    serving = [b.name for b in report.backends if b.active and b.state in _USABLE]
    queued, running = (report.queue.get(state, 0) for state in ("queued", "running"))
    word = "draining" if report.draining else report.status.value
    parts = [f"{word}: {report.reasons[0]}" if report.reasons else word]
    if not serving:
        parts.append("no backend is usable")
    elif report.status is not HealthStatus.UNHEALTHY:
        # A usable backend serves nobody while, for example, the store cannot be written.
        parts.append(f"served by {', '.join(serving)}")
    parts += [f"{queued} queued, {running} running", f"{events_per_second:.2g} events/s"]
    if refused_reload:
        parts.append(f"LAST RELOAD REFUSED: {refused_reload}")
    return "; ".join(parts)
