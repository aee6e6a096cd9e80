"""The worker: takes one leased event to one backend and writes down what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.errors import BackendError, Disposition, ErrorCode, Symptom
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.runtime.retry import (
    GiveUp,
    Retry,
    RetryBudget,
    decide,
    goes_over,
    to_avoid,
    with_attempt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationResult
    from ai_ticket_daemon.backends.pool import BackendPool, Slot
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.runtime.board import Board
    from ai_ticket_daemon.runtime.observer import PipelineObserver
    from ai_ticket_daemon.store.port import EventStore, Lease

WRITE_SECONDS = 10.0
"""How long writing an outcome may take once it is known, even while the daemon stops."""


@dataclass(slots=True)
class Run:
    """One event in a worker's hands; cancelled through :meth:`abandon`, to know the reason."""

    lease: Lease
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    abandoned: bool = False
    delta_passed_on: bool = False
    put_back: bool = False

    def abandon(self) -> None:
        """Stop: nobody wants the result any more."""
        self.abandoned = True
        self.scope.cancel()


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

    async def run(self, run: Run, slot: Slot) -> None:
        """Make one attempt at the event and write its outcome, or put it back in the queue.

        The slot is released as soon as the backend is free of this event. When cancelled from
        outside (the daemon stops), the event goes back to the queue, the attempt not counted.
        """
        event = run.lease.event
        started_at = self.now()
        if not run.lease.attempts:
            self.budget.started(started_at)
        with self.observer.handling(event, started_at - event.submitted_at):
            try:
                result = await self._attempt(run, slot)
            except trio.Cancelled:
                with trio.CancelScope(shield=True), trio.move_on_after(WRITE_SECONDS):
                    await self._put_back(run, self.now(), run.lease.attempts)
                raise
            finally:
                slot.release()
            attempt = _describe(result, slot, started_at, self.now())
            with trio.CancelScope(shield=True), trio.fail_after(WRITE_SECONDS):
                await self._settle(run, slot, result, attempt)

    async def _attempt(self, run: Run, slot: Slot) -> GenerationResult | BackendError | _Stopped:
        if run.abandoned:
            return _Stopped(abandoned=True)
        event = run.lease.event

        def pass_on(text: str) -> None:
            run.delta_passed_on = True
            self.board.add_delta(event.event_id, text)

        request = GenerationRequest(event.messages, event.sampling, stream=event.stream)
        run.scope.deadline = trio.current_time() + (event.deadline_at - self.now())
        with run.scope:
            try:
                result = await slot.client.generate(request, pass_on if event.stream else None)
            except BackendError as error:
                self.pool.attempt_failed(slot, event.event_id, error)
                return error
            except Exception as error:  # noqa: BLE001 - the edge of one event: others go on
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

    async def _settle(
        self,
        run: Run,
        slot: Slot,
        result: GenerationResult | BackendError | _Stopped,
        attempt: Attempt,
    ) -> None:
        event = run.lease.event
        attempts = with_attempt(run.lease.attempts, attempt)
        self.observer.attempt_ended(event, attempt)
        if isinstance(result, _Stopped):
            if result.abandoned:
                await self._end(run, EventState.CANCELLED, abandoned_outcome(attempts))
            else:
                await self._end(run, EventState.EXPIRED, _out_of_time(run, attempts))
        elif isinstance(result, BackendError):
            decision = self._decide(run, slot, result, attempts)
            if isinstance(decision, Retry):
                self.observer.retry_scheduled(event, attempt, decision.delay_seconds)
                # The pool lets a busy backend rest; another one may take the event meanwhile.
                busy = result.disposition is Disposition.BUSY
                delay_seconds = 0.0 if busy else decision.delay_seconds
                await self._put_back(run, self.now() + delay_seconds, attempts)
            else:
                await self._end(run, EventState.FAILED, _failed(result, attempts, decision))
        else:
            await self._end(
                run,
                EventState.SUCCEEDED,
                Succeeded(
                    result.text,
                    attempt.backend,
                    result.finish_reason,
                    result.usage,
                    duration_seconds=self.now() - event.submitted_at,
                    attempts=attempts,
                ),
            )

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

    async def _put_back(self, run: Run, due_at: float, attempts: tuple[Attempt, ...]) -> None:
        run.put_back = await self.store.release(run.lease, due_at=due_at, attempts=attempts)
        if not run.put_back:
            self.observer.outcome_refused(run.lease.event)

    async def _end(self, run: Run, state: EventState, outcome: Outcome) -> None:
        event = run.lease.event
        if await self.store.complete(run.lease, state, outcome):
            self.observer.ended(event, state, outcome)
            self.board.end(event.event_id, outcome)
        else:
            self.observer.outcome_refused(event)


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The attempt was cancelled: by whoever wanted the result, else by the event's deadline."""

    abandoned: bool


def abandoned_outcome(attempts: tuple[Attempt, ...] = ()) -> Failed:
    """Return the outcome of an event whose client left."""
    return Failed(
        ErrorCode.CANCELLED, "The client left before the event had ended.", attempts=attempts
    )


def _describe(
    result: GenerationResult | BackendError | _Stopped,
    slot: Slot,
    started_at: float,
    ended_at: float,
) -> Attempt:
    name = slot.backend.name
    if isinstance(result, BackendError):
        return Attempt(
            name,
            started_at,
            ended_at,
            error=result.code,
            message=result.message,
            counted=result.disposition is not Disposition.BUSY,
            backend_died=result.disposition is Disposition.OVER_ONCE,
            elsewhere=goes_over(result),
        )
    if isinstance(result, _Stopped):
        code = ErrorCode.CANCELLED if result.abandoned else ErrorCode.DEADLINE_EXCEEDED
        return Attempt(name, started_at, ended_at, error=code, message="aborted on the backend")
    return Attempt(name, started_at, ended_at)


def _out_of_time(run: Run, attempts: tuple[Attempt, ...]) -> Failed:
    event = run.lease.event
    return Failed(
        ErrorCode.DEADLINE_EXCEEDED,
        f"The generation did not end within the {event.deadline_at - event.submitted_at:g} s "
        "this event had; allow it more time with timeout_seconds or ask for fewer tokens.",
        {"backend": attempts[-1].backend},
        attempts=attempts,
    )


def _failed(error: BackendError, attempts: tuple[Attempt, ...], decision: GiveUp) -> Failed:
    details = dict(error.details or {})
    details |= {
        "backend": attempts[-1].backend,
        "attempts": len(attempts),
        "not_retried_because": decision.reason,
    }
    return Failed(error.code, error.message, details, error.retry_after_seconds, attempts)
