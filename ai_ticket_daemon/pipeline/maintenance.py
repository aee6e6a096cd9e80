"""The caretaker: an actor that does for the queue what no client and no worker does.

It ends events whose deadline has passed and those nobody wants, wakes the dispatcher for retries,
keeps the leases of this daemon, takes over from daemons that are gone, sees what other daemons
changed, and forgets events that ended long ago.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.outcome import Waste
from ai_ticket_daemon.events.state import FINAL_STATES
from ai_ticket_daemon.pipeline import failures
from ai_ticket_daemon.pipeline.dispatcher import STORE_SECONDS
from ai_ticket_daemon.pipeline.outcome_writer import WHERE
from ai_ticket_daemon.store.leases import ORPHANED, lost_attempt
from ai_ticket_daemon.store.port import Lease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ai_ticket_daemon.backends.pool import BackendPool
    from ai_ticket_daemon.config.store import StoreConfig
    from ai_ticket_daemon.exhaustion import Exhaustion
    from ai_ticket_daemon.liveness import Pulse
    from ai_ticket_daemon.pipeline.dispatcher import Dispatcher
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.queue import Hold
    from ai_ticket_daemon.pipeline.waiters import Board
    from ai_ticket_daemon.store.port import EventStore
    from ai_ticket_daemon.wakeup import Wakeup

TIDY_SECONDS = 1.0
"""The longest time between two rounds; bounds how late a deadline in the queue is noticed."""

OTHERS_SECONDS = 0.25
"""How late the changes of another daemon are noticed, at the most."""

PRUNE_SECONDS = 5.0
PRUNE_BATCH = 500
CANCEL_AT_ONCE = 100
"""Cancellations under way together; they share the store's commits."""

EXPIRE_BATCH = 500
"""Events ended or forgotten in one transaction; others are to get their turn in between."""


class Caretaker:
    """Looks after the queue.

    Args:
        store: where events live.
        pool: is woken when something can be started.
        dispatcher: holds the leases of this daemon.
        board: is told of outcomes.
        observer: is told of what happens.
        settings: the ``[store]`` section in force now.
        requeued: changes when an event went back to the queue.
        pulse: is promised the next round.
        hold: what keeps events from being started.
        exhaustion: is told of what the host lacks.
        now: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pool: BackendPool,
        dispatcher: Dispatcher,
        board: Board,
        observer: PipelineObserver,
        settings: Callable[[], StoreConfig],
        requeued: Wakeup,
        pulse: Pulse,
        hold: Hold,
        exhaustion: Exhaustion,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._pool = pool
        self._dispatcher = dispatcher
        self._board = board
        self._observer = observer
        self._settings = settings
        self._now = now
        self._unwanted: set[str] = set()
        self._orphans: Mapping[str, int] = {}
        self._requeued = requeued
        self._pulse = pulse
        self._hold = hold
        self._exhaustion = exhaustion

    def unwanted(self, event_id: str) -> None:
        """Nobody wants the event any more: end it, unless a worker does."""
        self._unwanted.add(event_id)
        self._requeued.notify()

    def is_unwanted(self, event_id: str) -> bool:
        """Tell whether the event is about to be ended because nobody wants it."""
        return event_id in self._unwanted

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after the queue; runs until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tidy)
                nursery.start_soon(self._every, lambda: OTHERS_SECONDS, self._see_others)
                nursery.start_soon(self._every, self._lease_interval, self._keep_leases)
                nursery.start_soon(self._every, lambda: TIDY_SECONDS, self._take_over)
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
                if not self._passes(error):
                    raise

    def _passes(self, error: BaseException) -> bool:
        """Tell whether the next round, which finds the work undone, may fare better."""
        if isinstance(error, BaseExceptionGroup):
            return all(self._passes(one) for one in error.exceptions)
        # Of the first it is said once by the store itself.
        return isinstance(error, StoreUnavailable) or (
            self._exhaustion.meets(error, WHERE) is not None
        )

    async def _tidy(self) -> None:
        while True:
            seen = self._requeued.version
            self._pulse.beat("tidier", TIDY_SECONDS + STORE_SECONDS)
            try:
                await self._end_unwanted()
                await self._expire()
                wait_seconds = await self._wake_for_retries()
            except Exception as error:
                if not self._passes(error):
                    raise
                wait_seconds = TIDY_SECONDS
            with trio.move_on_after(wait_seconds):
                await self._requeued.wait(seen)

    async def _end_unwanted(self) -> None:
        while self._unwanted:
            async with trio.open_nursery() as nursery:
                for event_id in islice(self._unwanted, CANCEL_AT_ONCE):
                    nursery.start_soon(self._end_one, event_id)

    async def _end_one(self, event_id: str) -> None:
        ended = await self._store.cancel(event_id, self._now(), failures.abandoned)
        self._unwanted.discard(event_id)
        if ended is None:
            return
        before, record = ended
        if before not in FINAL_STATES and record.outcome is not None:
            self._dispatcher.drop(event_id, Waste.CLIENT_LEFT)
            self._observer.ended(record.event, record.state, record.outcome)

    async def _expire(self) -> None:
        while True:
            expired = await self._store.expire(self._now(), EXPIRE_BATCH, held=self._hold.why)
            for record in expired:
                if record.outcome is not None:
                    self._observer.ended(record.event, record.state, record.outcome)
                    self._board.end(record.event.event_id, record.outcome)
            if len(expired) < EXPIRE_BATCH:
                return

    async def _wake_for_retries(self) -> float:
        """Wake the dispatcher if something is due; return how long to wait for what comes next."""
        due_at = await self._store.next_due()
        if due_at is None:
            return TIDY_SECONDS
        now = self._now()
        if due_at <= now:
            self._pool.changed.notify()
            return TIDY_SECONDS
        return min(TIDY_SECONDS, due_at - now)

    def _lease_interval(self) -> float:
        return self._settings().lease_seconds / 3

    async def _keep_leases(self) -> None:
        before = {run.lease.event.event_id for run in self._dispatcher}
        held = await self._store.extend(self._now() + self._settings().lease_seconds)
        for event in self._dispatcher.lose(held, only=before):
            self._observer.lease_lost(event)
        await self._adopt_orphans(held)

    async def _adopt_orphans(self, held: Mapping[str, int]) -> None:
        """Queue events that are leased to this daemon and in no worker's hands: one crashed.

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
            self._requeued.notify()

    async def _take_over(self) -> None:
        if await self._store.recover(self._now()):
            self._pool.changed.notify()

    async def _see_others(self) -> None:
        if not await self._store.changed_elsewhere():
            return
        self._pool.changed.notify()
        await self._keep_leases()
        elsewhere = [i for i in self._board.watched() if self._dispatcher.get(i) is None]
        for event_id, outcome in (await self._store.outcomes(elsewhere)).items():
            self._board.end(event_id, outcome)

    async def _prune(self) -> None:
        before = self._now() - self._settings().retention_seconds
        while await self._store.prune(before, PRUNE_BATCH) == PRUNE_BATCH:
            await trio.lowlevel.checkpoint()
