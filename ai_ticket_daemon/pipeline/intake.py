"""The intake: accepts events, lets parties wait for them, and tells how an event stands."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.outcome import Failed, Outcome
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.events.status import EventStatus
from ai_ticket_daemon.pipeline.waiters import Submission, Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.pipeline.dispatcher import Dispatcher
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.queue import Admission, Queue
    from ai_ticket_daemon.pipeline.turns import RecentTurns
    from ai_ticket_daemon.pipeline.waiters import Waiters
    from ai_ticket_daemon.store.port import EventRecord, Receipt

DRAIN_RETRY_SECONDS = 5.0
"""When a daemon that stops is likely to be back."""


class Intake:
    """Accepts events.

    Args:
        queue: takes them.
        dispatcher: is woken for new ones, and cancels those that nobody wants.
        waiters: those who wait for an event.
        admission: whether new events are accepted.
        turns: how long events take.
        observer: is told of events that find no place.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        dispatcher: Dispatcher,
        waiters: Waiters,
        admission: Admission,
        turns: RecentTurns,
        observer: PipelineObserver,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._waiters = waiters
        self._admission = admission
        self._turns = turns
        self._observer = observer

    async def submit(self, event: Event, *, owned: bool) -> Submission:
        """Accept one event, for a party that waits for it.

        Raises:
            RequestRefused: as :meth:`enqueue`; also ``idempotency_conflict``.
            StoreUnavailable: it could not be written.
        """
        # The waiter comes first: once stored, the event may end before this task runs again.
        waiter = self._waiters.add(event.event_id, Waiter())
        try:
            [receipt] = await self._accept([event], owned=owned)
        except TicketError:
            self._waiters.remove(event.event_id, waiter)
            raise
        except trio.Cancelled:  # the client left, and the store may have the event or not
            self._waiters.remove(event.event_id, waiter)
            self._cancel(event)
            raise
        if receipt.refusal is None and not receipt.replayed:
            return self._submission(self._accepted(event, receipt), waiter)
        self._waiters.remove(event.event_id, waiter)
        if receipt.refusal is not None:
            raise receipt.refusal
        earlier = await self.join(receipt.event_id)
        if earlier is None:
            raise _forgotten()
        return earlier

    async def enqueue(self, events: Sequence[Event]) -> list[EventStatus | RequestRefused]:
        """Accept all ``events`` or none, for nobody to wait for; return one answer for each.

        Raises:
            RequestRefused: ``draining``, or ``queue_full`` with the time the backends need.
            StoreUnavailable: they could not be written.
        """
        receipts = await self._accept(events, owned=False)
        answers: list[EventStatus | RequestRefused] = []
        for event, receipt in zip(events, receipts, strict=True):
            if receipt.refusal is not None:
                answers.append(receipt.refusal)
            elif receipt.replayed:
                answers.append(
                    await self.status(receipt.event_id) or EventStatus(event, EventState.QUEUED)
                )
            else:
                answers.append(self._accepted(event, receipt))
        return answers

    async def iter_responses(
        self,
        events: Sequence[Event],
        earlier: dict[str, str] | None,
        on_accepted: Callable[[], None] | None,
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Accept many events at once; yield their outcomes as they come.

        See :meth:`AsyncInferencePipeline.iter_responses`.
        """
        send, receive = trio.open_memory_channel[tuple[str, Outcome]](len(events))
        if len({event.event_id for event in events}) != len(events):
            raise ValueError("each event of a batch needs an id of its own")
        waiting: dict[str, Submission] = {}
        began_at = trio.current_time()

        def report(event_id: str, outcome: Outcome) -> None:
            send.send_nowait((event_id, outcome))

        waiters = {event.event_id: Waiter(partial(report, event.event_id)) for event in events}
        for event_id, waiter in waiters.items():
            self._waiters.add(event_id, waiter)
        try:
            try:
                receipts = await self._accept(events, owned=True)
            except trio.Cancelled:  # the store may have them or not
                for event in events:
                    self._cancel(event)
                raise
            for event, receipt in zip(events, receipts, strict=True):
                waiter = waiters[event.event_id]
                if receipt.refusal is not None:
                    report(event.event_id, Failed.from_error(receipt.refusal))
                elif receipt.replayed:
                    self._waiters.remove(event.event_id, waiter)
                    if earlier is not None:
                        earlier[event.event_id] = receipt.event_id
                    found = await self.join(receipt.event_id, waiter=waiter)
                    if found is None:
                        report(event.event_id, Failed.from_error(_forgotten()))
                    else:
                        waiting[event.event_id] = found
                else:
                    status = self._accepted(event, receipt)
                    waiting[event.event_id] = self._submission(status, waiter)
            size = len(events)
            del events  # their texts are in the store
            if on_accepted is not None:
                on_accepted()
            for left in reversed(range(size)):
                event_id, outcome = await receive.receive()
                waiting.pop(event_id, None)
                if left == 0:
                    self._observer.batch_ended(size, trio.current_time() - began_at)
                yield event_id, outcome
                if event_id in waiters:
                    waiters[event_id].release()
        finally:
            for event_id, waiter in waiters.items():
                self._waiters.remove(event_id, waiter)
            for submission in waiting.values():
                submission.abandon()

    async def join(
        self, event_id: str, *, delays_stop: bool = True, waiter: Waiter | None = None
    ) -> Submission | None:
        """Wait for an event that is in the store already; None if it is not known.

        Args:
            event_id: which event.
            delays_stop: whether a stop should wait for it to end.
            waiter: sees the event; None for a new one.
        """
        waiter = self._waiters.add(event_id, waiter or Waiter(delays_stop=delays_stop))
        record = None
        try:
            record = await self._queue.store.get(event_id)
        finally:
            if record is None or record.outcome is not None:
                self._waiters.remove(event_id, waiter)
        if record is None:
            return None
        if record.outcome is not None:
            waiter.end(record.outcome)
        return self._submission(self.status_of(record), waiter, replayed=True)

    async def status(self, event_id: str) -> EventStatus | None:
        """Return how an event stands; None if it is not known."""
        record = await self._queue.store.get(event_id)
        return None if record is None else self.status_of(record)

    def status_of(self, record: EventRecord) -> EventStatus:
        """Return how an event stands, of which the store has this ``record``."""
        queued = record.state is EventState.QUEUED
        return EventStatus(
            record.event,
            record.state,
            record.attempts,
            record.outcome,
            record.position,
            estimated_start_at=self._start_at(record.position),
            backend=record.backend,
            held=self._admission.why_held if queued else None,
            ahead=self._queue.clock.ahead,
        )

    async def _accept(self, events: Sequence[Event], *, owned: bool) -> list[Receipt]:
        if self._admission.draining is not None:
            raise RequestRefused(
                ErrorCode.DRAINING,
                f"No new work is taken: {self._admission.draining}; send the event again.",
                retry_after_seconds=DRAIN_RETRY_SECONDS,
            )
        try:
            receipts = await self._queue.submit(events, owned=owned)
        except RequestRefused as error:
            if error.code is ErrorCode.QUEUE_FULL:
                seconds = self._turns.seconds_for(
                    len(events),
                    slots=self._dispatcher.slots,
                    expected_seconds=self._dispatcher.expected_turn_seconds,
                )
                error.retry_after_seconds = seconds or error.retry_after_seconds
                self._observer.queue_full(len(events))
            raise
        self._dispatcher.wake()
        return receipts

    def _accepted(self, event: Event, receipt: Receipt) -> EventStatus:
        """Return how an event stands that was just accepted."""
        return EventStatus(
            event,
            EventState.QUEUED,
            position=receipt.position,
            estimated_start_at=self._start_at(receipt.position),
            held=self._admission.why_held,
            ahead=self._queue.clock.ahead,
        )

    def _start_at(self, position: int | None) -> float | None:
        if position is None or self._admission.why_held is not None:
            return None
        return self._turns.start_at(
            position,
            slots=self._dispatcher.slots,
            free=self._dispatcher.free,
            now=self._queue.now(),
            expected_seconds=self._dispatcher.expected_turn_seconds,
        )

    def _submission(
        self, status: EventStatus, waiter: Waiter, *, replayed: bool = False
    ) -> Submission:
        return Submission(status, waiter, replayed=replayed, stop=self._stop_waiting)

    def _stop_waiting(self, submission: Submission, unwanted: bool) -> None:
        alone = self._waiters.remove(submission.event_id, submission.waiter)
        if unwanted and alone and not submission.waiter.ended:
            self._cancel(submission.status.event)

    def _cancel(self, event: Event) -> None:
        """Cancel an event that nobody waits for any more.

        One with an idempotency key goes on: its client can come back for it.
        """
        if event.idempotency_key is None:
            self._dispatcher.cancel(event.event_id)


def stopping() -> Failed:
    """Return what a waiter is told if the daemon stops before the event has ended."""
    return Failed(
        ErrorCode.DRAINING,
        "The daemon is stopping; the event is kept and goes on after the restart: ask for it by "
        "its event_id.",
        retry_after_seconds=DRAIN_RETRY_SECONDS,
    )


def _forgotten() -> RequestRefused:
    """Return the answer to a key whose event was forgotten between two looks."""
    return RequestRefused(
        ErrorCode.EVENT_NOT_FOUND,
        "The event of this idempotency key was forgotten meanwhile; use a new key.",
    )
