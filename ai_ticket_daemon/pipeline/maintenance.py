"""Maintenance: an actor that does for the queue what no client and no worker does.

It ends events whose deadline has passed and those that nobody wants, wakes the dispatcher for
retries, extends the leases of this daemon, rescues events of daemons that are gone, sees what other
daemons changed, and prunes events that ended long ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.outcome import Attempt, Outcome, Waste
from ai_ticket_daemon.events.state import FINAL_STATES
from ai_ticket_daemon.pipeline.dispatcher import STORE_SECONDS
from ai_ticket_daemon.pipeline.in_flight import abandoned
from ai_ticket_daemon.store.port import Lease
from ai_ticket_daemon.store.rules import ORPHANED, lost_attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ai_ticket_daemon.liveness import Pulse
    from ai_ticket_daemon.pipeline.counters import Counters
    from ai_ticket_daemon.pipeline.dispatcher import Dispatcher
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.queue import Admission, Queue
    from ai_ticket_daemon.pipeline.waiters import Waiters
    from ai_ticket_daemon.store.port import EventRecord

TIDY_SECONDS = 1.0
"""The longest time between two rounds; bounds how late a deadline in the queue is noticed."""

OTHERS_SECONDS = 0.25
"""How late the changes of another daemon are noticed, at the most."""

PRUNE_SECONDS = 5.0
PRUNE_BATCH = 500
CANCEL_AT_ONCE = 25
"""Cancellations under way together; they share the store's commits, each a turn of the loop."""

EXPIRE_BATCH = 500
"""Events ended or pruned in one transaction; others are to get their turn in between."""


class Maintenance:
    """Looks after the queue.

    Args:
        queue: has the events.
        dispatcher: knows what runs here and what nobody wants; is woken for what is due.
        waiters: are told of outcomes.
        admission: what keeps events from being started.
        counters: are told of events that ended.
        observer: is told of the rest.
        pulse: is promised the next round.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        dispatcher: Dispatcher,
        waiters: Waiters,
        admission: Admission,
        counters: Counters,
        observer: PipelineObserver,
        pulse: Pulse,
    ) -> None:
        self._queue = queue
        self._store = queue.store
        self._now = queue.now
        self._dispatcher = dispatcher
        self._waiters = waiters
        self._admission = admission
        self._counters = counters
        self._observer = observer
        self._pulse = pulse
        self._orphans: Mapping[str, int] = {}

    async def cancel(
        self, event_id: str, waste: Waste, outcome: Callable[[tuple[Attempt, ...]], Outcome]
    ) -> EventRecord | None:
        """Cancel an event in the store and abort it if it runs here; None if it is not known.

        An event that has ended already stays as it is. ``waste`` is the reason for which what was
        made of it is thrown away; ``outcome`` makes the outcome, given the attempts so far.

        Raises:
            StoreUnavailable: the cancellation could not be written.
        """
        cancelled = await self._store.cancel(event_id, self._now(), outcome)
        self._dispatcher.ended(event_id, waste)
        if cancelled is None:
            return None
        before, record = cancelled
        if before not in FINAL_STATES and record.outcome is not None:
            self._counters.event_ended(record.event, record.state, record.outcome)
            self._waiters.end(event_id, record.outcome)
        return record

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after the queue; runs until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tidy)
                nursery.start_soon(self._every, lambda: OTHERS_SECONDS, self._see_others)
                nursery.start_soon(self._every, self._lease_interval, self._keep_leases)
                nursery.start_soon(self._every, lambda: TIDY_SECONDS, self._rescue)
                nursery.start_soon(self._every, lambda: PRUNE_SECONDS, self._prune)
                task_status.started()
        finally:
            self._pulse.end("tidier")

    async def _every(
        self, interval_seconds: Callable[[], float], chore: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            await trio.sleep(interval_seconds())
            try:
                await chore()
            except Exception as error:
                if not self._queue.passes(error):
                    raise
                # The next round finds the work undone.

    async def _tidy(self) -> None:
        due = self._dispatcher.maintenance_due
        while True:
            seen = due.version
            self._pulse.beat("tidier", TIDY_SECONDS + STORE_SECONDS)
            try:
                await self._cancel_unwanted()
                await self._expire()
                wait_seconds = await self._wake_for_retries()
            except Exception as error:
                if not self._queue.passes(error):
                    raise
                wait_seconds = TIDY_SECONDS
            with trio.move_on_after(wait_seconds):
                await due.wait(seen)

    async def _cancel_unwanted(self) -> None:
        while event_ids := self._dispatcher.unwanted(CANCEL_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for event_id in event_ids:
                    nursery.start_soon(self.cancel, event_id, Waste.CLIENT_LEFT, abandoned)

    async def _expire(self) -> None:
        while True:
            held = self._admission.why_held
            expired = await self._store.expire(self._now(), EXPIRE_BATCH, held=held)
            for record in expired:
                if record.outcome is not None:
                    self._counters.event_ended(record.event, record.state, record.outcome)
                    self._waiters.end(record.event.event_id, record.outcome)
            if not expired:
                return
            await trio.lowlevel.checkpoint()

    async def _wake_for_retries(self) -> float:
        """Wake the dispatcher if something is due; return how long to wait for what comes next."""
        due_at = await self._store.next_due()
        if due_at is None:
            return TIDY_SECONDS
        now = self._now()
        if due_at <= now:
            self._dispatcher.wake()
            return TIDY_SECONDS
        return min(TIDY_SECONDS, due_at - now)

    def _lease_interval(self) -> float:
        return self._queue.settings().lease_seconds / 3

    async def _keep_leases(self) -> None:
        before = {running.event_id for running in self._dispatcher}
        held = await self._queue.extend_leases()
        for event in self._dispatcher.keep_only(held, of=before):
            self._observer.lease_lost(event)
        await self._requeue_orphans(held)

    async def _requeue_orphans(self, held: Mapping[str, int]) -> None:
        """Requeue events that are leased to this daemon and in no worker's hands: one crashed.

        Seen twice, since an event that was just claimed is not in its worker's hands yet.
        """
        orphans = {i: token for i, token in held.items() if self._dispatcher.get(i) is None}
        seen_before, self._orphans = self._orphans, orphans
        for event_id in [i for i, token in orphans.items() if seen_before.get(i) == token]:
            record = await self._store.get(event_id)
            if record is None:
                continue
            lease = Lease(record.event, orphans[event_id], record.attempts)
            now = self._now()
            lost = lost_attempt(record.backend or "", now, now, because=ORPHANED)
            await self._store.release(lease, due_at=now, attempts=(*record.attempts, lost))
            self._dispatcher.wake()

    async def _rescue(self) -> None:
        if await self._store.recover(self._now()):
            self._dispatcher.wake()

    async def _see_others(self) -> None:
        if not await self._store.changed_elsewhere():
            return
        self._dispatcher.wake()
        await self._keep_leases()
        elsewhere = [i for i in self._waiters.event_ids() if self._dispatcher.get(i) is None]
        for event_id, outcome in (await self._store.outcomes(elsewhere)).items():
            self._waiters.end(event_id, outcome)

    async def _prune(self) -> None:
        before = self._now() - self._queue.settings().retention_seconds
        while await self._store.prune(before, PRUNE_BATCH) == PRUNE_BATCH:
            await trio.lowlevel.checkpoint()
