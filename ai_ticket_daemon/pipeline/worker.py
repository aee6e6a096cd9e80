"""The worker: takes one leased event to one backend and writes down what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.host_lacks import not_asked
from ai_ticket_daemon.errors import (
    BackendError,
    Disposition,
    ErrorCode,
    Symptom,
)
from ai_ticket_daemon.events.outcome import Attempt, Succeeded, Waste
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.exhaustion import AGAIN_SECONDS, Exhaustion
from ai_ticket_daemon.pipeline import failures
from ai_ticket_daemon.pipeline.outcome_writer import WHERE, End, OutcomeWriter, Requeue
from ai_ticket_daemon.pipeline.retry import (
    GiveUp,
    Retry,
    RetryBudget,
    decide,
    goes_over,
    to_avoid,
    used_up,
    with_attempt,
)
from ai_ticket_daemon.pipeline.turns import RecentTurns, Waited

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationResult
    from ai_ticket_daemon.backends.pool import BackendPool, Slot
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.pipeline.in_flight import Run
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.waiters import Board
    from ai_ticket_daemon.store.port import EventStore

OVERTIME_SECONDS = 60.0
"""How long after its deadline an event may be in a worker's hands: aborts take their time."""


@dataclass(slots=True)
class Worker:
    """Runs leased events, each in a task of its own; holds no state of an event.

    ``now`` gives seconds since the Unix epoch, ``jitter`` a random number from 0 to 1.
    """

    store: EventStore
    pool: BackendPool
    board: Board
    settings: Callable[[], PipelineConfig]
    observer: PipelineObserver
    now: Callable[[], float]
    jitter: Callable[[], float] = random.random
    budget: RetryBudget = field(default_factory=RetryBudget)
    turns: RecentTurns = field(default_factory=RecentTurns)
    exhaustion: Exhaustion = field(default_factory=Exhaustion)
    writer: OutcomeWriter = field(init=False)

    def __post_init__(self) -> None:
        self.writer = OutcomeWriter(
            self.store, self.board, self.observer, self.now, self.exhaustion
        )

    async def run(self, run: Run, slot: Slot) -> None:
        """See an event through; one that this host has no means for now goes back to the queue."""
        try:
            await self._handle(run, slot)
        except Exception as error:
            if self.exhaustion.meets(error, WHERE) is None:
                raise
            await self.writer.write(run, Requeue(self.now(), run.lease.attempts))
        finally:
            slot.release()

    async def _handle(self, run: Run, slot: Slot) -> None:
        """Make one attempt at the event and write its outcome, or put it back in the queue.

        The slot is released as soon as the backend is free of this event. While the store cannot
        take the outcome, it is kept and tried again. When cancelled from outside (the daemon
        stops), the event goes back to the queue, the attempt not counted.
        """
        event, earlier = run.lease.event, run.lease.attempts
        run.backend, run.started_at = slot.backend.name, self.now()
        run.beat(event.deadline_at - run.started_at + OVERTIME_SECONDS)
        if not earlier:
            self.budget.started(run.started_at)
        waited = self._waited(run)
        run.behind = waited.behind
        with self.observer.handling(event, waited, backend=run.backend, earlier=earlier):
            try:
                resolution = await self._run(run, slot)
            except* trio.Cancelled:  # in a group, if the client of the server has tasks
                await self.writer.write(run, self._interrupted(run))
                raise
            finally:
                slot.release()
                self.turns.note(self.now())
            await self.writer.write(run, resolution)

    def _waited(self, run: Run) -> Waited:
        earlier = run.lease.attempts
        since = earlier[-1].ended_at if earlier else run.lease.event.submitted_at
        own = 1 if earlier else 0  # its own last turn ended when its last attempt did
        return Waited(run.started_at - since, max(0, self.turns.since(since) - own))

    def _interrupted(self, run: Run) -> Requeue:
        """Let the event go on after the restart of the daemon, as if it had not begun."""
        now = self.now()
        attempt = run.cut_short(now, run.lost or Waste.DAEMON_STOPPED)
        return Requeue(now, self._ended(run, attempt))

    async def _run(self, run: Run, slot: Slot) -> End | Requeue:
        """Make the attempt, unless there is none left, and decide what is to be written of it."""
        spent = used_up(run.lease.attempts, settings=self.settings())
        if spent is not None:
            self.observer.given_up(spent)
            return End(EventState.FAILED, failures.not_tried_again(run.lease.attempts, spent))
        result = await self._attempt(run, slot)
        while True:
            try:
                return self._resolve(run, slot, result)
            except Exception as error:
                # What the server gave is not thrown away because this host lacks a moment's memory.
                if self.exhaustion.meets(error, WHERE) is None:
                    raise
            await trio.sleep(AGAIN_SECONDS)

    async def _attempt(self, run: Run, slot: Slot) -> GenerationResult | BackendError | _Stopped:
        if run.abandoned:
            return _Stopped(abandoned=True)
        event = run.lease.event

        def pass_on(text: str) -> None:
            run.delta_passed_on = True
            self.board.add_delta(event.event_id, text)

        request = GenerationRequest(
            event.messages, event.sampling, stream=event.stream, received=run.received
        )
        run.scope.deadline = trio.current_time() + (event.deadline_at - self.now())
        with run.scope:
            try:
                result = await slot.client.generate(request, pass_on if event.stream else None)
            except BackendError as error:
                self.pool.attempt_failed(slot, event.event_id, error)
                return error
            except Exception as error:  # noqa: BLE001 - the edge of one event: others go on
                lacking = self.exhaustion.meets(error, WHERE)
                if lacking is not None:
                    lack = not_asked(run.backend, lacking, passed_on=run.delta_passed_on)
                    self.pool.attempt_failed(slot, event.event_id, lack)
                    return lack
                self.observer.worker_crashed(event, error)
                return BackendError(
                    ErrorCode.INTERNAL_ERROR,
                    "The daemon failed at this event; its log has the details under the event id.",
                    disposition=Disposition.FINAL,
                    backend_fault=False,
                )
            self.pool.attempt_succeeded(slot)
            return result
        return _Stopped(abandoned=run.abandoned)

    def _resolve(
        self, run: Run, slot: Slot, result: GenerationResult | BackendError | _Stopped
    ) -> End | Requeue:
        """Decide what is to be written about an attempt; decided once, however often written."""
        if isinstance(result, BackendError):
            if result.disposition is Disposition.HOST:
                # Nothing was tried: the pool keeps the next event away from there for a while.
                return Requeue(self.now(), run.lease.attempts)
            return self._after_failure(run, slot, result)
        event, now = run.lease.event, self.now()
        if isinstance(result, _Stopped):
            stopped = Waste.CLIENT_LEFT if result.abandoned else Waste.DEADLINE_EXCEEDED
            attempt = run.cut_short(now, run.lost or stopped)
            attempts = self._ended(run, attempt)
            if result.abandoned:
                return End(EventState.CANCELLED, failures.abandoned(attempts))
            return End(EventState.EXPIRED, failures.out_of_time(event, attempts))
        usage = result.usage
        run.received.note(usage.completion_tokens, estimated=usage.estimated)
        return End(
            EventState.SUCCEEDED,
            Succeeded(
                result.text,
                run.backend,
                result.finish_reason,
                usage,
                duration_seconds=now - event.submitted_at,
                attempts=self._ended(run, run.attempt(now)),
            ),
        )

    def _after_failure(self, run: Run, slot: Slot, error: BackendError) -> End | Requeue:
        attempt = replace(
            run.attempt(self.now()),
            error=error.code,
            message=error.message,
            counted=error.disposition is not Disposition.BUSY,
            backend_died=error.disposition is Disposition.OVER_ONCE,
            elsewhere=goes_over(error),
        )
        decision = self._decide(run, slot, error, (*run.lease.attempts, attempt))
        retried = isinstance(decision, Retry)
        attempt = replace(attempt, retried=retried, because=decision.reason)
        attempts = self._ended(run, attempt)
        if isinstance(decision, GiveUp):
            return End(EventState.FAILED, failures.failed(error, attempts, decision.reason))
        self.observer.retry_scheduled(run.lease.event, attempt, decision.delay_seconds)
        # The pool lets a busy backend rest; another one may take the event meanwhile.
        busy = error.disposition is Disposition.BUSY
        return Requeue(self.now() + (0.0 if busy else decision.delay_seconds), attempts)

    def _ended(self, run: Run, attempt: Attempt) -> tuple[Attempt, ...]:
        """Tell how the attempt ended; return all attempts of the event."""
        self.observer.attempt_ended(run.lease.event, attempt)
        if attempt.error is not None and not attempt.is_busy:
            self.observer.thrown_away(attempt)
        if attempt.retried is False:
            self.observer.given_up(attempt.because or "")
        return with_attempt(run.lease.attempts, attempt)

    def _decide(
        self, run: Run, slot: Slot, error: BackendError, attempts: tuple[Attempt, ...]
    ) -> Retry | GiveUp:
        settings = self.settings()
        elsewhere = self.pool.has_other(to_avoid(attempts))
        decision = decide(
            error,
            attempts,
            settings=settings,
            jitter=self.jitter(),
            seconds_left=run.lease.event.deadline_at - self.now(),
            delta_passed_on=run.delta_passed_on,
            pause_seconds=self.pool.pause_left_seconds(slot.backend),
            elsewhere=elsewhere,
        )
        # The budget protects a sick backend from more load; one that is lost gets none anyway.
        spared = error.symptom is Symptom.LOST or (elsewhere and goes_over(error))
        costs_budget = attempts[-1].counted and not spared
        if (
            isinstance(decision, Retry)
            and costs_budget
            and not self.budget.take(self.now(), settings.retry_budget)
        ):
            return GiveUp("too many events are being retried at once")
        return decision


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The attempt was cancelled: by whoever wanted the result, else by the event's deadline."""

    abandoned: bool
