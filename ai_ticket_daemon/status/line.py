"""The line that ``systemctl status`` shows: how it does and why, what waits, how fast it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.status.snapshot import HealthStatus

if TYPE_CHECKING:
    from ai_ticket_daemon.status.snapshot import Snapshot


def line_of(snapshot: Snapshot) -> str:
    """Return the line."""
    serving = [b.name for b in snapshot.backends if b.active and b.usable]
    queued, running = (snapshot.queue.states.get(state, 0) for state in ("queued", "running"))
    word = "draining" if snapshot.draining else snapshot.status.value
    parts = [f"{word}: {snapshot.reasons[0]}" if snapshot.reasons else word]
    if not serving:
        parts.append("no backend is usable")
    elif snapshot.status is not HealthStatus.UNHEALTHY:
        # A usable backend serves nobody while, for example, the store cannot be written.
        parts.append(f"served by {', '.join(serving)}")
    parts += [f"{queued} queued, {running} running", f"{snapshot.events_per_second:.2g} events/s"]
    if snapshot.reload_problems:
        parts.append(f"LAST RELOAD REFUSED: {snapshot.reload_problems[0]}")
    return "; ".join(parts)
