"""The pipeline: accepts events, sees them through, hands back how they ended.

An event goes one way through it: the intake takes it in, the dispatcher takes it from the queue to
a slot, a worker takes it to a backend and writes its outcome, and those who wait for it are told.
Maintenance looks after the queue beside that. The store owns the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.outcome import Attempt, Failed, Outcome, Waste
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.liveness import Liveness
from ai_ticket_daemon.pipeline.counters import Counters
from ai_ticket_daemon.pipeline.dispatcher import Dispatcher
from ai_ticket_daemon.pipeline.intake import Intake, stopping
from ai_ticket_daemon.pipeline.maintenance import Maintenance
from ai_ticket_daemon.pipeline.observer import PipelineObserver
from ai_ticket_daemon.pipeline.queue import PAUSED, STOPPING, Admission, Queue
from ai_ticket_daemon.pipeline.retry import Retries
from ai_ticket_daemon.pipeline.turns import RecentTurns
from ai_ticket_daemon.pipeline.waiters import Waiters
from ai_ticket_daemon.pipeline.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.status import EventStatus
    from ai_ticket_daemon.host.memory_budget import MemoryBudget
    from ai_ticket_daemon.pipeline.waiters import Submission
    from ai_ticket_daemon.pool.pool import BackendPool
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
        observer = observer or PipelineObserver()
        pulse = (liveness or Liveness()).pulse("pipeline")
        turns = RecentTurns()
        self.counters = counters = Counters(observer)
        """What came of events and attempts since the start."""
        self._pool = pool
        self._queue = queue = Queue(
            store, keeping, clock or Clock(), exhaustion or Exhaustion(), settings
        )
        self._waiters = waiters = Waiters(memory)
        self.admission = admission = Admission(waiters)
        """Whether events are accepted and started, and why not, in words."""
        self._dispatcher = dispatcher = Dispatcher(
            queue=queue,
            pool=pool,
            worker=Worker(
                queue=queue,
                pool=pool,
                waiters=waiters,
                retries=Retries(settings),
                turns=turns,
                counters=counters,
                observer=observer,
            ),
            admission=admission,
            settings=settings,
            pulse=pulse,
        )
        self._maintenance = Maintenance(
            queue=queue,
            dispatcher=dispatcher,
            waiters=waiters,
            admission=admission,
            counters=counters,
            observer=observer,
            pulse=pulse,
        )
        self._intake = Intake(
            queue=queue,
            dispatcher=dispatcher,
            waiters=waiters,
            admission=admission,
            turns=turns,
            observer=observer,
        )

    @property
    def in_flight(self) -> int:
        """How many events are in a worker's hands."""
        return len(self._dispatcher)

    @property
    def draining(self) -> bool:
        """Whether new events are refused: an operator asked for it, or the daemon stops."""
        return self.admission.draining is not None

    @property
    def paused(self) -> bool:
        """Whether events are accepted and kept, but none is started: an operator asked for it."""
        return self.admission.paused is not None

    def pause(self, because: str = PAUSED) -> None:
        """Accept and keep events, and start none, until :meth:`unpause`."""
        self.admission.paused = because
        self._dispatcher.wake()

    def unpause(self) -> None:
        """Start events again."""
        self.admission.paused = None
        self._dispatcher.wake()

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
        # A client that can wait for a backend may be served by another daemon as well.
        return await self._intake.submit(event, owned=fail_fast)

    async def enqueue(self, events: Sequence[Event]) -> list[EventStatus | RequestRefused]:
        """Accept all of ``events``, for which nobody waits; in one transaction.

        Returns:
            For each event, in order, how it stands, or ``idempotency_conflict``.

        Raises:
            RequestRefused: for all of them: ``draining`` or ``queue_full``.
            StoreUnavailable: none of them could be written.
        """
        return await self._intake.enqueue(events)

    async def watch(self, event_id: str) -> Submission | None:
        """Wait for an event that was submitted before; None if it is not known."""
        return await self._intake.join(event_id, delays_stop=False)

    async def status(self, event_id: str) -> EventStatus | None:
        """Return how an event stands; None if it is not known."""
        return await self._intake.status(event_id)

    async def cancel(self, event_id: str) -> EventStatus | None:
        """End an event that nobody wants any more; return how it stands then, None if unknown.

        A generation is aborted on its backend. What had ended already stays as it is.
        """
        running = self._dispatcher.get(event_id)

        def outcome(attempts: tuple[Attempt, ...]) -> Outcome:
            if running is not None:
                attempts = (*attempts, running.cut_short(self._queue.now(), Waste.CANCELLED))
            return Failed(ErrorCode.CANCELLED, "The event was cancelled.", attempts=attempts)

        record = await self._maintenance.cancel(event_id, Waste.CANCELLED, outcome)
        return None if record is None else self._intake.status_of(record)

    async def retry(self, event_id: str) -> EventStatus | None:
        """Queue a failed event again; return how it stands then, None if unknown."""
        record = await self._queue.store.retry(event_id, self._queue.now())
        self._dispatcher.wake()
        return None if record is None else self._intake.status_of(record)

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
        return self._intake.iter_responses(events, earlier, on_accepted)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take events from the queue to the backends; runs until cancelled.

        When cancelled, events in a worker's hands are requeued.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._maintenance.run)
            await nursery.start(self._dispatcher.run)
            task_status.started()

    def refuse_new(self, because: str = STOPPING) -> None:
        """Answer new events ``draining``; what clients wait for is still run."""
        self.admission.draining = because

    def accept_again(self) -> None:
        """Take new events again, after :meth:`refuse_new`."""
        self.admission.draining = None
        self._dispatcher.wake()

    async def drain(self) -> None:
        """Refuse new events and return when nobody waits and nothing runs any more.

        What clients wait for is still run; what they do not wait for stays in the queue. Cancel
        this call to stop waiting.
        """
        self.refuse_new()
        while self._waiters.delay_stop or len(self._dispatcher):
            await self._waiters.until_none_delays_stop()
            await self._dispatcher.until_idle()

    def send_waiters_away(self) -> None:
        """Tell all who still wait that the daemon stops; their events stay in the queue."""
        for event_id in self._waiters.event_ids():
            self._waiters.end(event_id, stopping())
