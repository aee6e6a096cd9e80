"""The worker: takes one leased event to one backend and writes down what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.failure import BackendError, Failure, RetryRule
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.wrappers.host_lacks import not_asked
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Attempt, Succeeded, Waste
from ai_ticket_daemon.events.reasoning import Reasoning
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.host.exhaustion import AGAIN_SECONDS
from ai_ticket_daemon.pipeline.in_flight import abandoned, failed, not_tried_again, out_of_time
from ai_ticket_daemon.pipeline.observer import Place
from ai_ticket_daemon.pipeline.outcome_writer import End, OutcomeWriter, Requeue
from ai_ticket_daemon.pipeline.retry import GiveUp, Retry, goes_over, to_avoid, with_attempt
from ai_ticket_daemon.pipeline.turns import Waited

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationResult
    from ai_ticket_daemon.pipeline.counters import Counters
    from ai_ticket_daemon.pipeline.in_flight import InFlight
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.queue import Queue
    from ai_ticket_daemon.pipeline.retry import Retries
    from ai_ticket_daemon.pipeline.turns import RecentTurns
    from ai_ticket_daemon.pipeline.waiters import Waiters
    from ai_ticket_daemon.pool.pool import BackendPool, Slot
    from ai_ticket_daemon.store.port import Lease

OVERTIME_SECONDS = 60.0
"""How long after its deadline an event may be in flight: an abort takes its time."""

PUT_OFF_SECONDS = 0.1
"""How long an event waits before a full server, the only one left to try, is looked at again."""


class Worker:
    """Runs leased events, each in a task of its own; holds no state of an event.

    Args:
        queue: takes what came of an event.
        pool: is told how attempts went.
        waiters: get the text and the outcome.
        retries: decides what follows a failed attempt.
        turns: remembers when a turn ended, and how long it took.
        counters: are told of what was made for nobody.
        observer: is told of the rest.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        pool: BackendPool,
        waiters: Waiters,
        retries: Retries,
        turns: RecentTurns,
        counters: Counters,
        observer: PipelineObserver,
    ) -> None:
        self._now = queue.now
        self._queue = queue
        self._writer = OutcomeWriter(queue, waiters, counters, observer)
        self._pool = pool
        self._waiters = waiters
        self._retries = retries
        self._turns = turns
        self._counters = counters
        self._observer = observer

    async def run(self, running: InFlight, slot: Slot) -> None:
        """See an event through; one that this host has no means for now is requeued."""
        try:
            await self._handle(running, slot)
        except Exception as error:
            if self._queue.lacks(error) is None:
                raise
            await self._writer.write(running, Requeue(self._now(), running.lease.attempts))
        finally:
            slot.release()

    async def _handle(self, running: InFlight, slot: Slot) -> None:
        """Make one attempt at the event and write its outcome, or requeue it.

        The slot is released as soon as the backend is free of this event. While the store cannot
        take the outcome, it is kept and tried again. When cancelled from outside (the daemon
        stops), the event is requeued, the attempt not counted.
        """
        event, earlier = running.lease.event, running.lease.attempts
        running.backend, running.started_at = slot.backend.name, self._now()
        running.beat(event.deadline_at - running.started_at + OVERTIME_SECONDS)
        if not earlier:
            self._retries.started(running.started_at)
        waited = self._waited(running)
        running.behind = waited.behind
        begun_at = trio.current_time()
        with self._observer.handling(event, waited, backend=running.backend, earlier=earlier):
            try:
                resolution = await self._run(running, slot)
            except* trio.Cancelled:  # in a group, if the client of the server has tasks
                await self._writer.write(running, self._interrupted(running))
                raise
            finally:
                slot.release()
                self._turns.note(self._now(), trio.current_time() - begun_at)
            await self._writer.write(running, resolution)

    async def put_off(self, lease: Lease) -> None:
        """Requeue an event for a moment, because the backend it is to be tried on is full."""
        due_at = self._now() + PUT_OFF_SECONDS
        with trio.CancelScope(shield=True):
            await self._queue.store.release(lease, due_at=due_at, attempts=lease.attempts)

    def _waited(self, running: InFlight) -> Waited:
        earlier = running.lease.attempts
        since = earlier[-1].ended_at if earlier else running.lease.event.submitted_at
        own = 1 if earlier else 0  # its own last turn ended when its last attempt did
        return Waited(
            running.started_at - since,
            max(0, self._turns.since(since) - own),
            running.lease.ahead_of,
            running.lease.overtaken - (earlier[-1].overtaken if earlier else 0),
        )

    def _interrupted(self, running: InFlight) -> Requeue:
        """Let the event go on after the restart of the daemon, as if it had not begun."""
        now = self._now()
        attempt = running.cut_short(now, running.lost or Waste.DAEMON_STOPPED)
        return Requeue(now, self._ended(running, attempt))

    async def _run(self, running: InFlight, slot: Slot) -> End | Requeue:
        """Make the attempt, unless there is none left, and decide what is to be written of it."""
        spent = self._retries.spent(running.lease.attempts)
        if spent is not None:
            self._observer.given_up(spent)
            return End(EventState.FAILED, not_tried_again(running.lease.attempts, spent))
        result = await self._attempt(running, slot)
        while True:
            try:
                return self._resolve(running, slot, result)
            except Exception as error:
                # What the server gave is not thrown away because this host lacks a moment's memory.
                if self._queue.lacks(error) is None:
                    raise
            await trio.sleep(AGAIN_SECONDS)

    async def _attempt(
        self, running: InFlight, slot: Slot
    ) -> GenerationResult | BackendError | _Stopped:
        if running.abandoned or running.lost:
            slot.read(None)
            return _Stopped(abandoned=running.abandoned)
        event = running.lease.event

        def pass_on(text: str) -> None:
            running.delta_passed_on = True
            self._waiters.add_delta(event.event_id, text)

        request = GenerationRequest(
            event.messages,
            event.sampling,
            stream=event.stream,
            reasoning=event.reasoning is Reasoning.INCLUDE,
            reasoning_effort=event.reasoning_effort,
            received=running.received,
        )
        if running.lease.beginning is not None:
            place = Place.AHEAD if running.lease.ahead_of else Place.IN_TURN
            place = place if running.was_read else Place.READ_ANEW
            self._observer.prompt_placed(running.backend, place)
        running.scope.deadline = trio.current_time() + (event.deadline_at - self._now())
        with running.scope:
            try:
                result = await slot.client.generate(request, pass_on if event.stream else None)
            except BackendError as error:
                self._pool.attempt_failed(slot, event.event_id, error)
                return error
            except Exception as error:  # noqa: BLE001 - the edge of one event: others go on
                lacking = self._queue.lacks(error)
                if lacking is not None:
                    lack = not_asked(running.backend, lacking, passed_on=running.delta_passed_on)
                    self._pool.attempt_failed(slot, event.event_id, lack)
                    return lack
                self._observer.worker_crashed(event, error)
                return BackendError(
                    Failure(ErrorCode.INTERNAL_ERROR, RetryRule.FINAL),
                    "The daemon failed at this event; its log has the details under the event id.",
                )
            self._pool.attempt_succeeded(slot)
            return result
        return _Stopped(abandoned=running.abandoned)

    def _resolve(
        self, running: InFlight, slot: Slot, result: GenerationResult | BackendError | _Stopped
    ) -> End | Requeue:
        """Decide what is to be written about an attempt; decided once, however often written."""
        if isinstance(result, BackendError):
            if result.failure.retry is RetryRule.HOST:
                # Nothing was tried: the pool keeps the next event away from there for a while.
                return Requeue(self._now(), running.lease.attempts)
            return self._after_failure(running, slot, result)
        event, now = running.lease.event, self._now()
        if isinstance(result, _Stopped):
            stopped = Waste.CLIENT_LEFT if result.abandoned else Waste.DEADLINE_EXCEEDED
            attempt = running.cut_short(now, running.lost or stopped)
            attempts = self._ended(running, attempt)
            if result.abandoned:
                return End(EventState.CANCELLED, abandoned(attempts))
            return End(EventState.EXPIRED, out_of_time(event, attempts))
        usage = result.usage
        running.received.note(usage.completion_tokens, estimated=usage.estimated)
        return End(
            EventState.SUCCEEDED,
            Succeeded(
                result.text,
                running.backend,
                result.finish_reason,
                usage,
                duration_seconds=now - event.submitted_at,
                attempts=self._ended(running, running.attempt(now)),
                reasoning=result.reasoning if event.reasoning is Reasoning.INCLUDE else None,
            ),
        )

    def _after_failure(self, running: InFlight, slot: Slot, error: BackendError) -> End | Requeue:
        attempt = replace(
            running.attempt(self._now()),
            error=error.code,
            message=error.message,
            counted=error.failure.retry is not RetryRule.BUSY,
            backend_died=error.failure.retry is RetryRule.OVER_ONCE,
            elsewhere=goes_over(error),
        )
        attempts = (*running.lease.attempts, attempt)
        decision = self._retries.after(
            error,
            attempts,
            now=self._now(),
            deadline_at=running.lease.event.deadline_at,
            delta_passed_on=running.delta_passed_on,
            pause_seconds=self._pool.pauses.left_seconds(slot.backend),
            elsewhere=self._pool.has_other(to_avoid(attempts)),
        )
        retried = isinstance(decision, Retry)
        attempt = replace(attempt, retried=retried, because=decision.reason)
        attempts = self._ended(running, attempt)
        if isinstance(decision, GiveUp):
            return End(EventState.FAILED, failed(error, attempts, decision.reason))
        self._observer.retry_scheduled(running.lease.event, attempt, decision.delay_seconds)
        # The pool lets a busy backend rest; another one may take the event meanwhile.
        busy = error.failure.retry is RetryRule.BUSY
        return Requeue(self._now() + (0.0 if busy else decision.delay_seconds), attempts)

    def _ended(self, running: InFlight, attempt: Attempt) -> tuple[Attempt, ...]:
        """Tell how the attempt ended; return all attempts of the event."""
        self._observer.attempt_ended(running.lease.event, attempt)
        if attempt.error is not None and not attempt.is_busy:
            self._counters.thrown_away(attempt)
        if attempt.retried is False:
            self._observer.given_up(attempt.because or "")
        return with_attempt(running.lease.attempts, attempt)


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The attempt was cancelled: its client left, or its deadline passed, or its lease was lost."""

    abandoned: bool
