"""The history: an actor that keeps what happened to the servers and to the daemon.

Whoever asks why an event took so long needs it, also after a restart, so it is in the store. It
stands between the pool and its observer: everything is passed on at once, and written down soon.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.store.port import KEPT_CHANGES, Change
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.pool.backend import Backend, GuestReason
    from ai_ticket_daemon.pool.failover import ActiveRole
    from ai_ticket_daemon.pool.health import Health
    from ai_ticket_daemon.store.port import EventStore

LEAST_GAP_SECONDS = 0.2
"""Between two writes, so that servers that flap do not keep the disk busy."""
WRITE_SECONDS = 10.0
LAST_WRITE_SECONDS = 2.0
"""How long the last write may take when the daemon stops."""

_WORKING = frozenset({HealthState.READY, HealthState.BUSY})


class PoolHistory(PoolObserver):
    """Notes the changes worth telling, and passes everything on to ``observer``.

    Args:
        observer: is told everything.
        store: keeps the changes.
        log: is told of changes that no store would take.
        now: seconds since the Unix epoch.
    """

    def __init__(
        self,
        observer: PoolObserver,
        store: EventStore,
        *,
        log: FilteringBoundLogger,
        now: Callable[[], float],
    ) -> None:
        self._observer = observer
        self._store = store
        self._log = log
        self._now = now
        # While the store takes nothing, as much waits as it would keep.
        self._unwritten: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self._noted = Wakeup()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write down what is noted; runs until cancelled, when it writes the rest."""
        task_status.started()
        try:
            while True:
                seen = self._noted.version
                if self._unwritten:
                    with trio.move_on_after(WRITE_SECONDS):
                        await self._write()
                    await trio.sleep(LEAST_GAP_SECONDS)
                else:
                    await self._noted.wait(seen)
        finally:
            with trio.move_on_after(LAST_WRITE_SECONDS, shield=True):
                await self._write()

    async def between(self, begin: float, end: float) -> list[Change]:
        """Return what happened in that time, the oldest first.

        Of a store that cannot be read, only what it has not taken yet.
        """
        found = {change for change in self._unwritten if begin <= change.at <= end}
        with suppress(StoreUnavailable):  # said once by the store itself
            found.update(await self._store.changes(begin, end))
        return sorted(found, key=lambda change: change.at)

    def health_changed(self, backend: Backend, before: Health) -> None:
        """Note it, unless the server only became busy or free: that happens all day."""
        health = backend.health
        if not {health.state, before.state} <= _WORKING:
            reason = f": {health.reason}" if health.reason else ""
            self.note(f"{backend.name} became {health.state.value}{reason}")
        self._observer.health_changed(backend, before)

    def restarted(self, backend: Backend) -> None:
        """Note it."""
        self.note(f"{backend.name} was restarted")
        self._observer.restarted(backend)

    def identified(self, backend: Backend) -> None:
        """Note which version runs, where the server tells."""
        if backend.health.software.version is not None:
            self.note(f"{backend.name} runs version {backend.health.software.version}")
        self._observer.identified(backend)

    def probe_crashed(self, backend: Backend, error: Exception) -> None:
        """Note it."""
        self.note(f"looking at {backend.name} failed by a fault of the daemon")
        self._observer.probe_crashed(backend, error)

    def slots_contradicted(self, backend: Backend) -> None:
        """Pass it on."""
        self._observer.slots_contradicted(backend)

    def woken(self, backend: Backend, problem: str | None) -> None:
        """Note it."""
        how = "was made to load its model" if problem is None else f"was not loaded: {problem}"
        self.note(f"{backend.name} {how}")
        self._observer.woken(backend, problem)

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        """Note it."""
        if before.role is not after.role or before.pinned != after.pinned:
            self.note(f"{to_backend} serves from now on: {after.detail or after.reason.value}")
        self._observer.role_changed(before, after, from_backend=from_backend, to_backend=to_backend)

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        """Pass it on; the attempt itself tells where it was made."""
        self._observer.guest_sent(backend, reason)

    def note(self, text: str) -> None:
        """Note that something happened now."""
        self._unwritten.append(Change(self._now(), text))
        self._noted.notify()

    async def _write(self) -> None:
        """Write what there is; what the store does not take is tried again."""
        if not self._unwritten:
            return
        batch = tuple(self._unwritten)
        try:
            await self._store.note_changes(batch)
        except StoreUnavailable:
            return  # said once by the store itself
        # What is wrong with them will be tomorrow, too: they are given up.
        except Exception as error:  # noqa: BLE001
            if exhausted(error) is not None:
                return  # they are tried again
            self._log.warning(
                "history_not_kept", changes=len(batch), reason=f"{type(error).__name__}: {error}"
            )
        # What was noted meanwhile stands behind these, or has pushed the first of them out.
        done = set(batch)
        while self._unwritten and self._unwritten[0] in done:
            self._unwritten.popleft()
