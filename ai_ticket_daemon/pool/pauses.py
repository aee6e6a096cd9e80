"""The servers that are left alone for a while, since they answer and take no generation now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.host.exhaustion import AGAIN_SECONDS
from ai_ticket_daemon.pool.pause import pause_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.pool.backend import Backend
    from ai_ticket_daemon.wakeup import Wakeup


class Pauses:
    """Begins and ends the pauses of servers.

    Args:
        servers: all servers.
        changed: is notified of each pause that begins or ends.
        settings: the ``[backends]`` section in force now.
        clock: seconds, monotonic.
        jitter: a random number from 0 to 1.
    """

    def __init__(
        self,
        servers: Iterable[Backend],
        changed: Wakeup,
        *,
        settings: Callable[[], BackendsConfig],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._servers = servers
        self._changed = changed
        self._settings = settings
        self._clock = clock
        self._jitter = jitter

    def host_lacks(self, backend: Backend) -> None:
        """Leave a server alone that this host could not ask: the next event would fare no better.

        Nothing is known of the server.
        """
        backend.pause.until = self._clock() + AGAIN_SECONDS
        self._changed.notify()

    def busy(self, backend: Backend, retry_after_seconds: float | None) -> None:
        """Leave a server alone that is busy with requests of others."""
        pause = backend.pause
        pause.refusals += 1
        wait = pause_seconds(pause.refusals, retry_after_seconds, self._jitter(), self._settings())
        pause.until = self._clock() + wait
        self._changed.notify()

    def reads_on(self, backend: Backend, seconds: float) -> None:
        """Leave a server alone that stops when it has read a prompt, in ``seconds`` at the most.

        A probe that finds it idle ends that sooner.
        """
        pause = backend.pause
        pause.reads_on = True
        pause.until = max(pause.until or 0.0, self._clock() + seconds)
        backend.doubted.notify()
        self._changed.notify()

    def reads_no_more(self, backend: Backend) -> None:
        """Take in that a server that was told to stop has, or does so for another reason."""
        if backend.pause.reads_on:
            self._end(backend)

    @property
    def next_end_at(self) -> float | None:
        """When the first pause ends (seconds, monotonic); None without pauses."""
        ends = (b.pause.until for b in self._servers if b.pause.until is not None)
        return min(ends, default=None)

    def left_seconds(self, backend: Backend) -> float:
        """How long a server will be left alone from now; 0 for one that is not."""
        return 0.0 if backend.pause.until is None else backend.pause.until - self._clock()

    def end_due(self) -> None:
        """End the pauses that are over, so that these servers are tried again."""
        now = self._clock()
        for backend in self._servers:
            if backend.pause.until is not None and backend.pause.until <= now:
                self._end(backend)

    def _end(self, backend: Backend) -> None:
        backend.pause.end()
        self._changed.notify()
