"""The dispatcher: an actor that takes events from the queue to free slots, one per slot.

It owns which events are in a worker's hands; the store owns the events, the pool the slots.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.outcome import Waste
from ai_ticket_daemon.pipeline.in_flight import Run
from ai_ticket_daemon.pipeline.outcome_writer import WHERE
from ai_ticket_daemon.pipeline.retry import to_avoid
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from ai_ticket_daemon.backends.pool import BackendPool, Slot
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.exhaustion import Exhaustion
    from ai_ticket_daemon.liveness import Pulse
    from ai_ticket_daemon.pipeline.estimate import Throughput
    from ai_ticket_daemon.pipeline.worker import Worker
    from ai_ticket_daemon.store.port import EventStore, Lease

LOOK_SECONDS = 5.0
"""How often to look for something to start when nothing says that there is."""

STORE_SECONDS = 20.0
"""How long the store may take for anything before the part that waits counts as hung."""

STORE_WAIT_SECONDS = 1.0
"""How long to leave a store alone that could not hand out an event."""

PUT_OFF_SECONDS = 0.1
"""How long an event waits before a full server, the only one left to try, is looked at again."""


class Dispatcher:
    """Starts events while there is one that is due, a free slot and room for one more.

    Args:
        store: hands out events.
        pool: hands out slots.
        worker: runs one event.
        settings: the ``[pipeline]`` section in force now.
        lease_seconds: how long a lease holds, unless extended.
        throughput: is told how long each event held its slot.
        requeued: changes when an event went back to the queue.
        may_start: asked before each start; what runs goes on either way.
        pulse: is promised progress, of the dispatcher and of each event.
        exhaustion: is told of what the host lacks.
        is_unwanted: asked of each event that was claimed; it is then ended rather than run.
        now: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pool: BackendPool,
        worker: Worker,
        settings: Callable[[], PipelineConfig],
        lease_seconds: Callable[[], float],
        throughput: Throughput,
        requeued: Wakeup,
        may_start: Callable[[], bool],
        pulse: Pulse,
        is_unwanted: Callable[[str], bool],
        exhaustion: Exhaustion,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._pool = pool
        self._worker = worker
        self._settings = settings
        self._lease_seconds = lease_seconds
        self._throughput = throughput
        self._now = now
        self._running: dict[str, Run] = {}
        self._claiming = False
        self._dropped: dict[str, Waste] = {}
        self._requeued = requeued
        self._may_start = may_start
        self._pulse = pulse
        self._is_unwanted = is_unwanted
        self._exhaustion = exhaustion
        self.ended = Wakeup()
        """Changes whenever an event has left its worker."""

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._running.values()))

    def get(self, event_id: str) -> Run | None:
        """Return the run of an event that is in a worker's hands here."""
        return self._running.get(event_id)

    @property
    def free(self) -> int:
        """How many more events could start now."""
        return max(0, self.slots - len(self._running))

    @property
    def slots(self) -> int:
        """How many events can run at a time."""
        return min(self._settings().max_concurrency, self._pool.capacity)

    def drop(self, event_id: str, waste: Waste) -> None:
        """Abort an event that was ended without its worker, for the reason ``waste``."""
        run = self._running.get(event_id)
        if run is not None:
            run.lose(waste)
        elif self._claiming:
            self._dropped[event_id] = waste

    def lose(self, held: Mapping[str, int], *, only: Collection[str]) -> list[Event]:
        """Abort those of ``only`` that run here without being among the leases ``held``."""
        lost = []
        for event_id in only:
            run = self._running.get(event_id)
            if run is not None and not run.lost and held.get(event_id) != run.lease.token:
                run.lose(Waste.LEASE_LOST)
                lost.append(run.lease.event)
        return lost

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start what can be started; runs until cancelled, when it puts everything back."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    seen = self._pool.changed.version
                    self._pulse.beat("starter", LOOK_SECONDS + STORE_SECONDS)
                    try:
                        await self._start_what_can(nursery)
                    except Exception as error:
                        # Of a store that fails it is said once by itself. Nothing is lost: what
                        # waits, waits.
                        unavailable = isinstance(error, StoreUnavailable)
                        if not unavailable and self._exhaustion.meets(error, WHERE) is None:
                            raise
                        await trio.sleep(STORE_WAIT_SECONDS)
                    else:
                        with trio.move_on_after(LOOK_SECONDS):
                            await self._pool.changed.wait(seen)
        finally:
            self._pulse.end("starter")

    async def _start_what_can(self, nursery: trio.Nursery) -> None:
        while self._may_start() and len(self._running) < self._settings().max_concurrency:
            slot = self._pool.acquire()
            if slot is None:
                return
            lease = None
            try:
                lease = await self._claim(slot)
            finally:
                if lease is None:
                    slot.give_back()
            if lease is None:
                return
            try:
                started = self._start(nursery, lease, slot)
            except Exception as error:
                if self._exhaustion.meets(error, WHERE) is None:
                    raise
                started = False
            if not started:
                await self._put_off(lease, slot)
                continue
            self._pulse.beat("starter", LOOK_SECONDS + STORE_SECONDS)

    def _start(self, nursery: trio.Nursery, lease: Lease, slot: Slot) -> bool:
        """Put an event into a worker's hands; False if the server it should go to is full now."""
        event_id = lease.event.event_id
        run = Run(lease, beat=partial(self._pulse.beat, f"event {event_id}"))
        better = self._pool.exchange(slot, to_avoid(lease.attempts))
        if better is None:
            return False
        self._running[event_id] = run
        if event_id in self._dropped:
            run.lose(self._dropped[event_id])
        elif self._is_unwanted(event_id):
            run.abandon()
        self._dropped.clear()
        try:
            nursery.start_soon(self._work, run, better)
        except BaseException:
            del self._running[event_id]
            if better is not slot:
                better.give_back()
            raise
        return True

    async def _put_off(self, lease: Lease, slot: Slot) -> None:
        """Let an event wait for the server it is to be tried on next, which is full now."""
        due_at = self._now() + PUT_OFF_SECONDS
        try:
            with trio.CancelScope(shield=True):
                await self._store.release(lease, due_at=due_at, attempts=lease.attempts)
        finally:
            if slot.is_taken:
                slot.give_back()
        self._requeued.notify()

    async def _claim(self, slot: Slot) -> Lease | None:
        now = self._now()
        self._claiming = True
        try:
            # A claim that is cut short would leave an event running in nobody's hands.
            with trio.CancelScope(shield=True):
                lease = await self._store.claim(
                    now, backend=slot.backend.name, until=now + self._lease_seconds()
                )
        finally:
            self._claiming = False
        return lease

    async def _work(self, run: Run, slot: Slot) -> None:
        begun_at = trio.current_time()
        try:
            await self._worker.run(run, slot)
        finally:
            self._throughput.measured(trio.current_time() - begun_at)
            event_id = run.lease.event.event_id
            # What goes back to the queue may be claimed anew before it is quite out of these hands.
            if self._running.get(event_id) is run:
                del self._running[event_id]
                self._pulse.end(f"event {event_id}")
            self.ended.notify()
            self._pool.changed.notify()
            if run.requeued:
                self._requeued.notify()
