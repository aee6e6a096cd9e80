"""The pipeline: accepts events, sees them through, hands back how they ended.

It is put together here from the reception, which takes events in, the dispatcher, which runs them
on the backends, the caretaker, which looks after the queue, and the board, where whoever waits
meets the outcome. The store owns the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.outcome import Attempt, Failed, Outcome, Waste
from ai_ticket_daemon.events.state import FINAL_STATES, EventState
from ai_ticket_daemon.events.status import EventStatus
from ai_ticket_daemon.exhaustion import Exhaustion
from ai_ticket_daemon.liveness import Liveness
from ai_ticket_daemon.pipeline.batch import iter_responses
from ai_ticket_daemon.pipeline.dispatcher import Dispatcher
from ai_ticket_daemon.pipeline.estimate import Throughput
from ai_ticket_daemon.pipeline.intake import Reception, forgotten, sent_away
from ai_ticket_daemon.pipeline.maintenance import Caretaker
from ai_ticket_daemon.pipeline.observer import PipelineObserver
from ai_ticket_daemon.pipeline.queue import PAUSED, STOPPING, Hold
from ai_ticket_daemon.pipeline.waiters import Board, Watch
from ai_ticket_daemon.pipeline.worker import Worker
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from ai_ticket_daemon.backends.pool import BackendPool
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.memory import MemoryBudget
    from ai_ticket_daemon.pipeline.submission import Submission
    from ai_ticket_daemon.store.port import EventStore


class AsyncInferencePipeline:
    """Runs events on backends, at most ``max_concurrency`` at once, one per slot.

    :meth:`run` must be running.

    Args:
        store: where events live.
        pool: who generates.
        settings: the ``[pipeline]`` section in force now.
        keeping: the ``[store]`` section in force now.
        observer: listens to what happens.
        liveness: is promised progress.
        clock: tells the time.
        memory: bounds what clients leave unread; None for no bound.
        exhaustion: is told of what the host lacks.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pool: BackendPool,
        settings: Callable[[], PipelineConfig],
        keeping: Callable[[], StoreConfig] = StoreConfig,
        observer: PipelineObserver | None = None,
        liveness: Liveness | None = None,
        clock: Clock | None = None,
        memory: MemoryBudget | None = None,
        exhaustion: Exhaustion | None = None,
    ) -> None:
        self._store = store
        self._pool = pool
        self._observer = observer or PipelineObserver()
        clock = clock or Clock()
        exhaustion = exhaustion or Exhaustion()
        self._now = now = clock.now
        self._board = Board(memory)
        self._hold = hold = Hold()
        throughput = Throughput()
        requeued = Wakeup()
        pulse = (liveness or Liveness()).pulse("pipeline")
        self._dispatcher = Dispatcher(
            store=store,
            pool=pool,
            worker=Worker(
                store, pool, self._board, settings, self._observer, now, exhaustion=exhaustion
            ),
            settings=settings,
            lease_seconds=lambda: keeping().lease_seconds,
            throughput=throughput,
            requeued=requeued,
            may_start=self._may_start,
            pulse=pulse,
            is_unwanted=self._is_unwanted,
            exhaustion=exhaustion,
            now=now,
        )
        self._caretaker = Caretaker(
            store=store,
            pool=pool,
            dispatcher=self._dispatcher,
            board=self._board,
            observer=self._observer,
            settings=keeping,
            requeued=requeued,
            pulse=pulse,
            hold=hold,
            exhaustion=exhaustion,
            now=now,
        )
        self._reception = Reception(
            store=store,
            pool=pool,
            dispatcher=self._dispatcher,
            caretaker=self._caretaker,
            board=self._board,
            throughput=throughput,
            observer=self._observer,
            hold=hold,
            clock=clock,
        )

    @property
    def in_flight(self) -> int:
        """How many events are in a worker's hands."""
        return len(self._dispatcher)

    @property
    def draining(self) -> bool:
        """Whether new events are refused: an operator asked for it, or the daemon stops."""
        return self._hold.draining is not None

    @property
    def paused(self) -> bool:
        """Whether events are accepted and kept, but none is started: an operator asked for it."""
        return self._hold.paused is not None

    @property
    def held(self) -> Hold:
        """Why, in words."""
        return self._hold

    def pause(self, because: str = PAUSED) -> None:
        """Accept and keep events, and start none, until :meth:`unpause`."""
        self._hold.paused = because
        self._pool.changed.notify()

    def unpause(self) -> None:
        """Start events again."""
        self._hold.paused = None
        self._pool.changed.notify()

    async def submit(self, event: Event, *, fail_fast: bool = True) -> Submission:
        """Accept one event, for somebody who waits for it.

        Args:
            event: what is wanted.
            fail_fast: refuse it while no backend is usable, rather than let it wait for one.

        Raises:
            RequestRefused: ``draining``, ``queue_full``, ``no_backend_available``, or
                ``idempotency_conflict``.
            StoreUnavailable: the event could not be written.
        """
        if fail_fast and not self._pool.usable:
            raise RequestRefused(
                ErrorCode.NO_BACKEND_AVAILABLE,
                "No backend is usable now; /health says why. Send the event again later.",
                retry_after_seconds=self._pool.retry_after_seconds,
            )
        # Watched before it is stored: it may end before this task runs again.
        watch = self._board.watch(event.event_id, Watch())
        try:
            # Who can do without a backend now can do without this daemon, too.
            [receipt] = await self._reception.accept([event], owned=fail_fast)
        except TicketError:
            self._board.unwatch(event.event_id, watch)
            raise
        except trio.Cancelled:  # the client left, and the store may have the event or not
            self._board.unwatch(event.event_id, watch)
            self._reception.unwanted(event)
            raise
        if receipt.refusal is None and not receipt.replayed:
            return self._reception.submission(
                self._reception.queued(event, receipt), watch, replayed=False
            )
        self._board.unwatch(event.event_id, watch)
        if receipt.refusal is not None:
            raise receipt.refusal
        earlier = await self._reception.join(receipt.event_id, replayed=True)
        if earlier is None:
            raise forgotten()
        return earlier

    async def enqueue(self, events: Sequence[Event]) -> list[EventStatus | RequestRefused]:
        """Accept all of ``events``, for which nobody waits; in one transaction.

        Returns:
            For each event, in order, how it stands, or ``idempotency_conflict``.

        Raises:
            RequestRefused: for all of them: ``draining`` or ``queue_full``.
            StoreUnavailable: none of them could be written.
        """
        answers: list[EventStatus | RequestRefused] = []
        for event, receipt in zip(
            events, await self._reception.accept(events, owned=False), strict=True
        ):
            if receipt.refusal is not None:
                answers.append(receipt.refusal)
            elif receipt.replayed:
                answers.append(
                    await self.status(receipt.event_id) or EventStatus(event, EventState.QUEUED)
                )
            else:
                answers.append(self._reception.queued(event, receipt))
        return answers

    async def watch(self, event_id: str) -> Submission | None:
        """Wait for an event that was submitted before; None if it is not known."""
        return await self._reception.join(event_id, replayed=True, holds_up=False)

    async def status(self, event_id: str) -> EventStatus | None:
        """Return how an event stands; None if it is not known."""
        record = await self._store.get(event_id)
        return None if record is None else self._reception.status_of(record)

    async def cancel(self, event_id: str) -> EventStatus | None:
        """End an event that nobody wants any more; return how it stands then, None if unknown.

        A generation is aborted on its backend. What had ended already stays as it is.
        """
        run = self._dispatcher.get(event_id)

        def outcome(attempts: tuple[Attempt, ...]) -> Outcome:
            if run is not None:
                attempts = (*attempts, run.cut_short(self._now(), Waste.CANCELLED))
            return Failed(ErrorCode.CANCELLED, "The event was cancelled.", attempts=attempts)

        cancelled = await self._store.cancel(event_id, self._now(), outcome)
        if cancelled is None:
            return None
        before, record = cancelled
        if before not in FINAL_STATES and record.outcome is not None:
            self._dispatcher.drop(event_id, Waste.CANCELLED)
            self._observer.ended(record.event, record.state, record.outcome)
            self._board.end(event_id, record.outcome)
        return self._reception.status_of(record)

    async def retry(self, event_id: str) -> EventStatus | None:
        """Queue a failed event again; return how it stands then, None if unknown."""
        record = await self._store.retry(event_id, self._now())
        self._pool.changed.notify()
        return None if record is None else self._reception.status_of(record)

    async def run_batch(self, events: Sequence[Event]) -> list[Outcome]:
        """Run all ``events`` and return their outcomes in the same order.

        An event that fails, or cannot even be accepted, has a failed outcome; the others go on.
        """
        place = {event.event_id: index for index, event in enumerate(events)}
        outcomes: list[Outcome | None] = [None] * len(events)
        try:
            async for event_id, outcome in self.iter_responses(events):
                outcomes[place[event_id]] = outcome
        except TicketError as error:
            return [Failed.from_error(error)] * len(events)
        return [outcome for outcome in outcomes if outcome is not None]

    def iter_responses(
        self,
        events: Sequence[Event],
        *,
        earlier: dict[str, str] | None = None,
        on_accepted: Callable[[], None] | None = None,
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Accept all ``events`` in one transaction; yield ``(event_id, outcome)`` as each one ends.

        The id is that of the event as given; where an idempotency key leads to an earlier event,
        ``earlier`` takes the id of that one. ``on_accepted`` is called when they are in the store;
        from then on their texts are not kept. Leaving the loop early abandons what has not ended
        yet; close the iterator (``contextlib.aclosing``) to make that happen at once.

        Raises:
            RequestRefused: for all of them: ``draining`` or ``queue_full``.
            StoreUnavailable: none of them could be written.
        """
        return iter_responses(self._reception, self._observer, events, earlier, on_accepted)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take events from the queue to the backends; runs until cancelled.

        When cancelled, events in a worker's hands go back to the queue.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._caretaker.run)
            await nursery.start(self._dispatcher.run)
            task_status.started()

    def refuse_new(self, because: str = STOPPING) -> None:
        """Answer new events ``draining``; what clients wait for is still run."""
        self._hold.draining = because

    def accept_again(self) -> None:
        """Take new events again, after :meth:`refuse_new`."""
        self._hold.draining = None
        self._pool.changed.notify()

    async def drain(self) -> None:
        """Refuse new events and return when nobody waits and nothing runs any more.

        What clients wait for is still run; what they do not wait for stays in the queue. Cancel
        this call to stop waiting.
        """
        self.refuse_new()
        while True:
            seen = self._dispatcher.ended.version
            if not self._board.holds_up and not len(self._dispatcher):
                return
            await self._dispatcher.ended.wait(seen)

    def send_waiters_away(self) -> None:
        """Tell everybody who still waits that the daemon stops; their events stay in the queue."""
        for event_id in self._board.watched():
            self._board.end(event_id, sent_away())

    def _is_unwanted(self, event_id: str) -> bool:
        return self._caretaker.is_unwanted(event_id)

    def _may_start(self) -> bool:
        return not self.paused and (not self.draining or self._board.holds_up)
