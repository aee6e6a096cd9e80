"""The reception: takes events in for whoever sends them, and knows who waits for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.events.status import EventStatus
from ai_ticket_daemon.pipeline.submission import Submission
from ai_ticket_daemon.pipeline.waiters import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.backends.pool import BackendPool
    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.pipeline.dispatcher import Dispatcher
    from ai_ticket_daemon.pipeline.estimate import Throughput
    from ai_ticket_daemon.pipeline.maintenance import Caretaker
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.queue import Hold
    from ai_ticket_daemon.pipeline.waiters import Board
    from ai_ticket_daemon.store.port import EventRecord, EventStore, Receipt

DRAIN_RETRY_SECONDS = 5.0
"""When a daemon that stops is likely to be back."""


class Reception:
    """Takes events in.

    Args:
        store: where events live.
        pool: is woken for new ones.
        dispatcher: knows what runs here.
        caretaker: ends what nobody wants.
        board: where whoever waits meets the outcome.
        throughput: how long events take.
        observer: is told of events that find no place.
        hold: what keeps events from being taken, or started.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pool: BackendPool,
        dispatcher: Dispatcher,
        caretaker: Caretaker,
        board: Board,
        throughput: Throughput,
        observer: PipelineObserver,
        hold: Hold,
        clock: Clock,
    ) -> None:
        self._store = store
        self._pool = pool
        self._dispatcher = dispatcher
        self._caretaker = caretaker
        self._throughput = throughput
        self._observer = observer
        self._hold = hold
        self._clock = clock
        self.board = board

    async def accept(self, events: Sequence[Event], *, owned: bool) -> list[Receipt]:
        """Put ``events`` in the queue, all or none.

        Raises:
            RequestRefused: ``draining``, or ``queue_full`` with the time the backends need.
            StoreUnavailable: they could not be written.
        """
        if self._hold.draining is not None:
            raise RequestRefused(
                ErrorCode.DRAINING,
                f"No new work is taken: {self._hold.draining}; send the event again.",
                retry_after_seconds=DRAIN_RETRY_SECONDS,
            )
        try:
            receipts = await self._store.submit(events, owned=owned)
        except RequestRefused as error:
            if error.code is ErrorCode.QUEUE_FULL:
                seconds = self._throughput.seconds_for(len(events), slots=self._dispatcher.slots)
                error.retry_after_seconds = seconds or error.retry_after_seconds
                self._observer.queue_full(len(events))
            raise
        self._pool.changed.notify()
        return receipts

    async def join(
        self,
        event_id: str,
        *,
        replayed: bool,
        holds_up: bool = True,
        watch: Watch | None = None,
    ) -> Submission | None:
        """Wait for an event that is in the store already; None if it is not known.

        Args:
            event_id: which event.
            replayed: whether it was submitted again, or is only looked at.
            holds_up: whether a stop should wait for it to end.
            watch: sees the event; None for a new one.
        """
        watch = self.board.watch(event_id, watch or Watch(holds_up=holds_up))
        record = None
        try:
            record = await self._store.get(event_id)
        finally:
            if record is None or record.outcome is not None:
                self.board.unwatch(event_id, watch)
        if record is None:
            return None
        if record.outcome is not None:
            watch.end(record.outcome)
        return self.submission(self.status_of(record), watch, replayed=replayed)

    def submission(self, status: EventStatus, watch: Watch, *, replayed: bool) -> Submission:
        """Return what whoever waits for the event is to hold."""
        return Submission(status, watch, replayed=replayed, stop=self._stop_waiting)

    def _stop_waiting(self, submission: Submission, unwanted: bool) -> None:
        event_id = submission.event_id
        alone = self.board.unwatch(event_id, submission.watch)
        self._dispatcher.ended.notify()  # for whoever waits for nobody to wait
        if unwanted and alone and not submission.watch.ended:
            self.unwanted(submission.status.event)

    def unwanted(self, event: Event) -> None:
        """Cancel an event that nobody waits for any more, unless they can come back for it."""
        if event.idempotency_key is not None:
            return
        run = self._dispatcher.get(event.event_id)
        if run is not None:
            run.abandon()
        else:
            self._caretaker.unwanted(event.event_id)

    def queued(self, event: Event, receipt: Receipt) -> EventStatus:
        """Return how an event stands that was just accepted."""
        return EventStatus(
            event,
            EventState.QUEUED,
            position=receipt.position,
            estimated_start_at=self._start_at(receipt.position),
            held=self._hold.why,
            ahead=self._clock.ahead,
        )

    def status_of(self, record: EventRecord) -> EventStatus:
        """Return how an event stands, of which the store has this ``record``."""
        return EventStatus(
            record.event,
            record.state,
            record.attempts,
            record.outcome,
            record.position,
            self._start_at(record.position),
            record.backend,
            self._hold.why if record.state is EventState.QUEUED else None,
            self._clock.ahead,
        )

    def _start_at(self, position: int | None) -> float | None:
        if position is None or self._hold.why is not None:
            return None
        return self._throughput.start_at(
            position,
            slots=self._dispatcher.slots,
            free=self._dispatcher.free,
            now=self._clock.now(),
        )


def sent_away() -> Failed:
    """Return what somebody is told whose event does not end before the daemon does."""
    return Failed(
        ErrorCode.DRAINING,
        "The daemon is stopping; the event is kept and goes on after the restart: ask for it by "
        "its event_id.",
        retry_after_seconds=DRAIN_RETRY_SECONDS,
    )


def forgotten() -> RequestRefused:
    """Return the answer to a key whose event was forgotten between two looks."""
    return RequestRefused(
        ErrorCode.EVENT_NOT_FOUND,
        "The event of this idempotency key was forgotten meanwhile; use a new key.",
    )
