"""The queue as this daemon uses it: whether it is open, and how events are taken from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.beginning import beginning_of
from ai_ticket_daemon.store.port import Preference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.config.store import StoreConfig
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
    from ai_ticket_daemon.pipeline.waiters import Waiters
    from ai_ticket_daemon.pool.backend import Backend
    from ai_ticket_daemon.store.port import EventStore, Lease, Receipt

PAUSED = "paused by an operator"
STOPPING = "the daemon is stopping"


class Admission:
    """Whether new events are accepted, and whether queued ones are started.

    ``paused`` and ``draining`` give the reason in words, and are None otherwise. While paused,
    events are accepted and none is started. While draining, none is accepted; queued ones are
    started as long as a client waits.
    """

    def __init__(self, waiters: Waiters) -> None:
        self._waiters = waiters
        self.paused: str | None = None
        self.draining: str | None = None

    @property
    def why_held(self) -> str | None:
        """Why a queued event that no client waits for is not started; None if it is."""
        return self.paused or self.draining

    @property
    def may_start(self) -> bool:
        """Whether the next event may be started."""
        return self.paused is None and (self.draining is None or self._waiters.delay_stop)


class Queue:
    """The store, with the settings and the clock by which this daemon takes events from it.

    Args:
        store: has the events.
        settings: the ``[store]`` section in force now.
        clock: tells the time.
        exhaustion: is told of what the host lacks for it.
        order: the ``[pipeline]`` section in force now.
    """

    def __init__(
        self,
        store: EventStore,
        settings: Callable[[], StoreConfig],
        clock: Clock,
        exhaustion: Exhaustion,
        order: Callable[[], PipelineConfig],
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.now = clock.now
        self._exhaustion = exhaustion
        self._order = order

    def lacks(self, error: BaseException) -> Resource | None:
        """Note what ``error`` says that the host lacks, and return it; None if that is nothing."""
        return self._exhaustion.meets(error, "pipeline")

    def passes(self, error: BaseException) -> bool:
        """Tell whether what failed may succeed later: the store or the host cannot do it now.

        The store itself logs that it fails. Of a group, each error has to pass.
        """
        if isinstance(error, BaseExceptionGroup):
            return all(self.passes(one) for one in error.exceptions)
        return isinstance(error, StoreUnavailable) or self.lacks(error) is not None

    async def submit(self, events: Sequence[Event], *, owned: bool) -> list[Receipt]:
        """Put all of ``events`` in the queue, or none; see :meth:`EventStore.submit`."""
        if not self._order().group_by_prefix:
            return await self.store.submit(events, owned=owned)
        beginnings = [beginning_of(event) for event in events]
        return await self.store.submit(events, owned=owned, beginnings=beginnings)

    async def claim(self, backend: Backend) -> Lease | None:
        """Claim the next event that is due for ``backend``; None if none is."""
        now = self.now()
        until = now + self.settings().lease_seconds
        prefer = _preference(self._order(), backend)
        return await self.store.claim(now, backend=backend.name, until=until, prefer=prefer)

    async def extend_leases(self) -> Mapping[str, int]:
        """Extend all leases of this daemon; return the token of each event held."""
        return await self.store.extend(self.now() + self.settings().lease_seconds)


def _preference(order: PipelineConfig, backend: Backend) -> Preference | None:
    """Return what may be taken ahead of others for ``backend``; None if nothing ever is."""
    if not order.group_by_prefix:
        return None
    return Preference(
        tuple(beginning for beginning in backend.read_last if beginning is not None),
        order.group_by_prefix_events,
        order.group_by_prefix_seconds,
    )
