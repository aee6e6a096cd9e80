"""The dispatcher: an actor that takes events from the queue to free slots, one per slot.

It owns which events are in flight here and which ones nobody wants. The store owns the events, the
pool the slots.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.limits import MAX_TOKENS
from ai_ticket_daemon.events.outcome import Waste
from ai_ticket_daemon.pipeline.in_flight import InFlight
from ai_ticket_daemon.pipeline.retry import to_avoid
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.liveness import Pulse
    from ai_ticket_daemon.pipeline.queue import Admission, Queue
    from ai_ticket_daemon.pipeline.worker import Worker
    from ai_ticket_daemon.pool.pool import BackendPool, Slot
    from ai_ticket_daemon.store.port import Lease

LOOK_SECONDS = 5.0
"""How often to look for something to start when nothing says that there is."""

STORE_SECONDS = 20.0
"""How long one call of the store may take before the actor that waits counts as hung."""

STORE_WAIT_SECONDS = 1.0
"""How long to wait after the store or the host could not do it, before the next try."""


class Dispatcher:
    """Starts events while there is one that is due, a free slot and room for one more.

    ``maintenance_due`` changes when an event went back to the queue, or is not wanted any more.

    Args:
        queue: hands out events.
        pool: hands out slots.
        worker: runs one event.
        admission: whether the next event may be started; what runs goes on either way.
        settings: the ``[pipeline]`` section in force now.
        pulse: is promised progress, of the dispatcher and of each event.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        pool: BackendPool,
        worker: Worker,
        admission: Admission,
        settings: Callable[[], PipelineConfig],
        pulse: Pulse,
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._worker = worker
        self._admission = admission
        self._settings = settings
        self._pulse = pulse
        self._in_flight: dict[str, InFlight] = {}
        self._unwanted: set[str] = set()
        self._claiming = False
        self._ended_meanwhile: dict[str, Waste] = {}
        self._due = Wakeup()
        pool.changed.forward_to(self._due)
        self._ended = Wakeup()
        self.maintenance_due = Wakeup()

    def __len__(self) -> int:
        """Return how many events are in flight here."""
        return len(self._in_flight)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(tuple(self._in_flight.values()))

    def get(self, event_id: str) -> InFlight | None:
        """Return an event that is in flight here; None if it is not."""
        return self._in_flight.get(event_id)

    @property
    def free(self) -> int:
        """How many more events could start now."""
        return max(0, self.slots - len(self._in_flight))

    @property
    def slots(self) -> int:
        """How many events can run at a time."""
        return min(self._settings().max_concurrency, self._pool.capacity)

    @property
    def expected_turn_seconds(self) -> float | None:
        """How long a turn is likely to take at the speed the servers tell; None if none does."""
        return self._pool.expected_turn_seconds(MAX_TOKENS.default)

    def wake(self) -> None:
        """Look for something to start: an event may be due, or may be started now."""
        self._due.notify()

    async def until_idle(self) -> None:
        """Return as soon as no event is in flight here."""
        while True:
            seen = self._ended.version
            if not self._in_flight:
                return
            await self._ended.wait(seen)

    # Events that are not to run, or not to run on.

    def cancel(self, event_id: str) -> None:
        """Cancel an event that nobody wants any more.

        Its worker ends it, if one has it. Otherwise maintenance does, and it is not started
        meanwhile.
        """
        running = self._in_flight.get(event_id)
        if running is not None and not running.requeues:
            running.abandon()
        else:
            self._unwanted.add(event_id)
            self.maintenance_due.notify()

    def unwanted(self, most: int) -> list[str]:
        """Return up to ``most`` events that are to be ended in the store."""
        return list(islice(self._unwanted, most))

    def ended(self, event_id: str, waste: Waste) -> None:
        """Take note that the store has nothing more to run of an event: abort it here, too.

        ``waste`` is the reason for which what was made of it is thrown away.
        """
        self._unwanted.discard(event_id)
        running = self._in_flight.get(event_id)
        if running is not None:
            running.lose(waste)
        if self._claiming:  # The claim may have taken the event before it was ended.
            self._ended_meanwhile[event_id] = waste

    def keep_only(self, held: Mapping[str, int], *, of: Collection[str]) -> list[Event]:
        """Abort those events ``of`` which this daemon does not have the lease any more.

        Not those of which it is writing what became of them, which gives the lease back.

        Args:
            held: the tokens of the leases that this daemon holds, by event.
            of: the events that ran here when it was asked for them.

        Returns:
            The events that were aborted.
        """
        lost = []
        for event_id in of:
            running = self._in_flight.get(event_id)
            if (
                running is not None
                and not running.lost
                and not running.resolved
                and held.get(event_id) != running.lease.token
            ):
                running.lose(Waste.LEASE_LOST)
                lost.append(running.lease.event)
        return lost

    # Starting events.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start what can be started; runs until cancelled, when all that runs is requeued."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    seen = self._due.version
                    self._pulse.beat("starter", LOOK_SECONDS + STORE_SECONDS)
                    try:
                        await self._start_what_can(nursery)
                    except Exception as error:
                        if not self._queue.passes(error):
                            raise
                        # Nothing is lost: what waits, waits.
                        await trio.sleep(STORE_WAIT_SECONDS)
                    else:
                        with trio.move_on_after(LOOK_SECONDS):
                            await self._due.wait(seen)
        finally:
            self._pulse.end("starter")

    async def _start_what_can(self, nursery: trio.Nursery) -> None:
        while self._admission.may_start and len(self._in_flight) < self._settings().max_concurrency:
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
                if self._queue.lacks(error) is None:
                    raise
                started = False
            if not started:
                await self._put_off(lease, slot)
                continue
            self._pulse.beat("starter", LOOK_SECONDS + STORE_SECONDS)

    async def _claim(self, slot: Slot) -> Lease | None:
        self._ended_meanwhile.clear()
        self._claiming = True
        try:
            # A claim that is cut short would leave an event running in nobody's hands.
            with trio.CancelScope(shield=True):
                lease = await self._queue.claim(slot.backend)
        finally:
            self._claiming = False
        return lease

    def _start(self, nursery: trio.Nursery, lease: Lease, slot: Slot) -> bool:
        """Give an event to a worker; False if the backend it should go to is full now."""
        event_id = lease.event.event_id
        running = InFlight(lease, beat=partial(self._pulse.beat, f"event {event_id}"))
        if event_id in self._ended_meanwhile:
            running.lose(self._ended_meanwhile[event_id])
        elif event_id in self._unwanted:
            running.abandon()
        better = self._pool.exchange(slot, to_avoid(lease.attempts))
        if better is None:
            return False
        running.was_read = better.read(lease.beginning)
        self._in_flight[event_id] = running
        try:
            nursery.start_soon(self._work, running, better)
        except BaseException:
            del self._in_flight[event_id]
            if better is not slot:
                better.give_back()
            raise
        # From here on its worker ends the event, if nobody wants it.
        self._unwanted.discard(event_id)
        return True

    async def _put_off(self, lease: Lease, slot: Slot) -> None:
        """Let an event wait for the backend it is to be tried on next, which is full now."""
        try:
            await self._worker.put_off(lease)
        finally:
            if slot.is_taken:
                slot.give_back()
        self.maintenance_due.notify()

    async def _work(self, running: InFlight, slot: Slot) -> None:
        try:
            await self._worker.run(running, slot)
        finally:
            # A requeued event may be claimed anew before its last worker has ended.
            if self._in_flight.get(running.event_id) is running:
                del self._in_flight[running.event_id]
                self._pulse.end(f"event {running.event_id}")
            self._ended.notify()
            self.wake()
            if running.requeues:
                self.maintenance_due.notify()
