"""The pipeline: accepts events, runs them on the backends, hands back how they ended.

An actor: :meth:`AsyncInferencePipeline.run` must be running. It owns which events are in a
worker's hands; the store owns the events, the pool the slots, the board who waits for what.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.outcome import Failed, Outcome
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.runtime.board import Board
from ai_ticket_daemon.runtime.observer import PipelineObserver
from ai_ticket_daemon.runtime.retry import to_avoid
from ai_ticket_daemon.runtime.signal import Signal
from ai_ticket_daemon.runtime.worker import Run, Worker, abandoned_outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence

    from ai_ticket_daemon.backends.pool import BackendPool, Slot
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.runtime.board import Watch
    from ai_ticket_daemon.store.port import EventStore

LONGEST_LOOK_SECONDS = 1.0
"""How long the tidier may sleep; bounds how late a deadline in the queue is noticed."""


class Submission:
    """An accepted event, as whoever submitted it sees it."""

    def __init__(self, event_id: str, watch: Watch, abandon: Callable[[str], None]) -> None:
        self.event_id = event_id
        self._watch = watch
        self._abandon = abandon

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how."""
        return await self._watch.outcome()

    def deltas(self) -> AsyncIterator[str]:
        """Yield the completion in pieces as they come; ends when the event has ended."""
        return self._watch.deltas()

    def abandon(self) -> None:
        """Nobody wants the result any more: cancel, and free the slot. Harmless once ended."""
        self._abandon(self.event_id)


class AsyncInferencePipeline:
    """Runs events on backends, at most ``max_concurrency`` at once, one per slot.

    Args:
        store: where events live.
        pool: who generates.
        settings: the ``[pipeline]`` section in force now.
        observer: listens to what happens.
        now: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pool: BackendPool,
        settings: Callable[[], PipelineConfig],
        observer: PipelineObserver | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings
        self._observer = observer or PipelineObserver()
        self._now = now
        self._board = Board()
        self._worker = Worker(store, pool, self._board, settings, self._observer, now)
        self._running: dict[str, Run] = {}
        self._unwanted: set[str] = set()
        self._untidy = Signal()
        self._draining = False
        self._idle = Signal()

    @property
    def in_flight(self) -> int:
        """How many events are in a worker's hands."""
        return len(self._running)

    @property
    def draining(self) -> bool:
        """Whether new events are refused because the daemon stops."""
        return self._draining

    async def submit(self, event: Event) -> Submission:
        """Accept one event.

        Raises:
            RequestRefused: the daemon drains, the queue is full, or no backend is usable.
            StoreUnavailable: the event could not be written.
        """
        if not self._pool.usable:
            raise RequestRefused(
                ErrorCode.NO_BACKEND_AVAILABLE,
                "No backend is usable now; /health says why. Send the event again later.",
                retry_after_seconds=self._pool.retry_after_seconds,
            )
        return await self._accept(event, on_outcome=None)

    async def run_batch(self, events: Sequence[Event]) -> list[Outcome]:
        """Run all ``events`` and return their outcomes in the same order.

        An event that fails, or cannot even be accepted, has a failed outcome; the others go on.
        """
        place = {event.event_id: index for index, event in enumerate(events)}
        outcomes: list[Outcome | None] = [None] * len(events)
        async for event_id, outcome in self.iter_responses(events):
            outcomes[place[event_id]] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    async def iter_responses(
        self, events: Sequence[Event]
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Run all ``events``; yield ``(event_id, outcome)`` as each one ends.

        Leaving the loop early abandons what has not ended yet; close the iterator
        (``contextlib.aclosing``) to make that happen at once.
        """
        send, receive = trio.open_memory_channel[tuple[str, Outcome]](len(events))
        open_ids = {event.event_id for event in events}
        if len(open_ids) != len(events):
            raise ValueError("each event of a batch needs an id of its own")

        def report(event_id: str) -> Callable[[Outcome], None]:
            return lambda outcome: send.send_nowait((event_id, outcome))

        try:
            for event in events:
                try:
                    await self._accept(event, on_outcome=report(event.event_id))
                except TicketError as error:
                    send.send_nowait((event.event_id, Failed.from_error(error)))
            while open_ids:
                event_id, outcome = await receive.receive()
                open_ids.discard(event_id)
                yield event_id, outcome
        finally:
            for event_id in open_ids:
                self._abandon(event_id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take events from the queue to the backends; runs until cancelled.

        When cancelled, events in a worker's hands go back to the queue.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tidy)
            task_status.started()
            while True:
                seen = self._pool.changed.version
                await self._start_what_can(nursery)
                await self._pool.changed.wait(seen)

    async def drain(self) -> None:
        """Refuse new events, start none, and return when nothing runs any more.

        Clients whose events have not started are told ``draining``. Cancel this call to stop
        waiting for what still runs.
        """
        self._draining = True
        self.send_waiters_away(but=self._running.keys())
        while self._running:
            await self._idle.wait(self._idle.version)

    def send_waiters_away(self, *, but: Collection[str] = ()) -> None:
        """Tell everybody who waits that the daemon stops, except for the events in ``but``."""
        outcome = Failed(*_DRAINING, retry_after_seconds=_DRAIN_RETRY_SECONDS)
        for event_id in self._board.watched():
            if event_id not in but:
                self._board.end(event_id, outcome)

    async def _accept(
        self, event: Event, *, on_outcome: Callable[[Outcome], None] | None
    ) -> Submission:
        if self._draining:
            raise RequestRefused(*_DRAINING, retry_after_seconds=_DRAIN_RETRY_SECONDS)
        watch = self._board.watch(event.event_id, on_outcome)
        try:
            await self._store.submit([event])
        except TicketError:
            self._board.unwatch(event.event_id)
            raise
        except trio.Cancelled:  # the client left, and the store may have the event or not
            self._abandon(event.event_id)
            raise
        self._pool.changed.notify()
        return Submission(event.event_id, watch, self._abandon)

    def _abandon(self, event_id: str) -> None:
        self._board.unwatch(event_id)
        run = self._running.get(event_id)
        if run is not None:
            run.abandon()
        else:
            self._unwanted.add(event_id)
            self._untidy.notify()

    async def _start_what_can(self, nursery: trio.Nursery) -> None:
        """Start events while there is one that is due, a free slot and room for one more."""
        while not self._draining and len(self._running) < self._settings().max_concurrency:
            slot = self._pool.acquire()
            if slot is None:
                return
            lease = None
            try:
                lease = await self._store.claim(self._now())
            finally:
                if lease is None:
                    slot.give_back()
            if lease is None:
                return
            slot = self._pool.exchange(slot, to_avoid(lease.attempts))
            run = Run(lease)
            event_id = lease.event.event_id
            self._running[event_id] = run
            if event_id in self._unwanted:
                self._unwanted.discard(event_id)
                run.abandon()
            nursery.start_soon(self._work, run, slot)

    async def _work(self, run: Run, slot: Slot) -> None:
        try:
            await self._worker.run(run, slot)
        finally:
            del self._running[run.lease.event.event_id]
            self._idle.notify()
            self._pool.changed.notify()
            if run.put_back:
                self._untidy.notify()

    async def _tidy(self) -> None:
        """End what is unwanted or too late while it waits, and wake the starter for retries."""
        while True:
            seen = self._untidy.version
            while self._unwanted:
                event_id = self._unwanted.pop()
                outcome = abandoned_outcome()
                before = await self._store.cancel(event_id, outcome)
                if before is EventState.QUEUED:
                    record = await self._store.get(event_id)
                    if record is not None:
                        self._observer.ended(record.event, EventState.CANCELLED, outcome)
            now = self._now()
            for event_id in await self._store.expire(now):
                record = await self._store.get(event_id)
                if record is not None and record.outcome is not None:
                    self._observer.ended(record.event, EventState.EXPIRED, record.outcome)
                    self._board.end(event_id, record.outcome)
            due_at = await self._store.next_due()
            wait = LONGEST_LOOK_SECONDS
            if due_at is not None:
                if due_at <= now:
                    self._pool.changed.notify()
                else:
                    wait = min(wait, due_at - now)
            with trio.move_on_after(wait):
                await self._untidy.wait(seen)


_DRAINING = (
    ErrorCode.DRAINING,
    "The daemon is stopping and takes no new work; send the event again.",
)
_DRAIN_RETRY_SECONDS = 5.0
