"""The worker: takes one leased event to one backend and writes down what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.errors import (
    BackendError,
    Disposition,
    ErrorCode,
    StoreUnavailable,
    Symptom,
)
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.runtime.retry import (
    GiveUp,
    Retry,
    RetryBudget,
    decide,
    goes_over,
    to_avoid,
    used_up,
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

WRITE_AGAIN_SECONDS = 1.0
"""How long to leave a store alone that could not take an outcome; it is kept here meanwhile."""

OVERTIME_SECONDS = 60.0
"""How long after its deadline an event may be in a worker's hands: aborts take their time."""

WRITE_SECONDS = 20.0
"""How long one try to write an outcome may take before the worker counts as hung."""

LAST_WRITE_SECONDS = 10.0
"""How long the last try to write an outcome may take when the daemon stops."""


@dataclass(slots=True)
class Run:
    """One event in a worker's hands; cancelled through :meth:`abandon`, to know the reason."""

    lease: Lease
    backend: str = ""
    started_at: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    abandoned: bool = False
    lost: bool = False
    delta_passed_on: bool = False
    put_back: bool = False
    beat: Callable[[float], None] = lambda _seconds: None
    """Promises the next sign of life of its worker, within so many seconds."""

    def abandon(self) -> None:
        """Stop: nobody wants the result any more."""
        self.abandoned = True
        self.scope.cancel()

    def lose(self) -> None:
        """Stop: the event has ended, or is run by somebody else; there is nothing to write."""
        self.lost = True
        self.scope.cancel()

    def cut_short(self, now: float) -> Attempt:
        """Return the attempt that is being made, as one that was aborted at ``now``."""
        return Attempt(
            self.backend,
            self.started_at,
            now,
            error=ErrorCode.CANCELLED,
            message="aborted on the backend",
        )


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

        The slot is released as soon as the backend is free of this event. While the store cannot
        take the outcome, it is kept and tried again. When cancelled from outside (the daemon
        stops), the event goes back to the queue, the attempt not counted.
        """
        event = run.lease.event
        run.backend, run.started_at = slot.backend.name, self.now()
        run.beat(event.deadline_at - run.started_at + OVERTIME_SECONDS)
        if not run.lease.attempts:
            self.budget.started(run.started_at)
        with self.observer.handling(
            event,
            run.started_at - event.submitted_at,
            backend=run.backend,
            earlier=run.lease.attempts,
        ):
            try:
                resolution = await self._run(run, slot)
            except trio.Cancelled:
                await self._write(run, _PutBack(self.now(), run.lease.attempts))
                raise
            finally:
                slot.release()
            await self._write(run, resolution)

    async def _run(self, run: Run, slot: Slot) -> _End | _PutBack:
        """Make the attempt, unless there is none left, and decide what is to be written of it."""
        spent = used_up(run.lease.attempts, settings=self.settings())
        if spent is not None:
            return _End(EventState.FAILED, _not_tried_again(run.lease.attempts, spent))
        result = await self._attempt(run, slot)
        return self._resolve(run, slot, result)

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

    def _resolve(
        self, run: Run, slot: Slot, result: GenerationResult | BackendError | _Stopped
    ) -> _End | _PutBack:
        """Decide what is to be written about an attempt; decided once, however often written."""
        event = run.lease.event
        attempt = _describe(result, run, self.now())
        attempts = with_attempt(run.lease.attempts, attempt)
        self.observer.attempt_ended(event, attempt)
        match result:
            case _Stopped(abandoned=True):
                return _End(EventState.CANCELLED, abandoned_outcome(attempts))
            case _Stopped():
                return _End(EventState.EXPIRED, _out_of_time(run, attempts))
            case BackendError():
                decision = self._decide(run, slot, result, attempts)
                if isinstance(decision, GiveUp):
                    return _End(EventState.FAILED, _failed(result, attempts, decision))
                self.observer.retry_scheduled(event, attempt, decision.delay_seconds)
                # The pool lets a busy backend rest; another one may take the event meanwhile.
                busy = result.disposition is Disposition.BUSY
                delay_seconds = 0.0 if busy else decision.delay_seconds
                return _PutBack(self.now() + delay_seconds, attempts)
        return _End(
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

    async def _write(self, run: Run, resolution: _End | _PutBack) -> None:
        """Write until it is written, or the lease is lost, or the daemon stops.

        Each try is shielded: one that is cut short may have been written or not.
        """
        try:
            while not run.lost:
                run.beat(WRITE_AGAIN_SECONDS + WRITE_SECONDS)
                with trio.CancelScope(shield=True):
                    try:
                        return await self._try_to_write(run, resolution)
                    except StoreUnavailable:
                        pass  # Said once by the store itself.
                await trio.sleep(WRITE_AGAIN_SECONDS)
        except trio.Cancelled:
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_WRITE_SECONDS):
                try:
                    await self._try_to_write(run, resolution)
                except StoreUnavailable:
                    self.observer.outcome_unwritten(run.lease.event)
            raise

    async def _try_to_write(self, run: Run, resolution: _End | _PutBack) -> None:
        event = run.lease.event
        if isinstance(resolution, _PutBack):
            due_at, attempts = resolution.due_at, resolution.attempts
            written = await self.store.release(run.lease, due_at=due_at, attempts=attempts)
            run.put_back = written
        else:
            state, outcome = resolution.state, resolution.outcome
            written = await self.store.complete(run.lease, state, outcome, self.now())
            if written:
                self.observer.ended(event, state, outcome)
                self.board.end(event.event_id, outcome)
        if not written:
            self.observer.outcome_refused(event)


@dataclass(frozen=True, slots=True)
class _End:
    state: EventState
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class _PutBack:
    due_at: float
    attempts: tuple[Attempt, ...]


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
    result: GenerationResult | BackendError | _Stopped, run: Run, ended_at: float
) -> Attempt:
    name, started_at = run.backend, run.started_at
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
        unwanted = result.abandoned or run.lost
        code = ErrorCode.CANCELLED if unwanted else ErrorCode.DEADLINE_EXCEEDED
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


def _not_tried_again(attempts: tuple[Attempt, ...], reason: str) -> Failed:
    """Return the outcome of an event that used up its attempts without any of them reporting."""
    last = attempts[-1]
    return Failed(
        last.error or ErrorCode.INTERNAL_ERROR,
        last.message or "The last attempt did not report how it ended.",
        {"backend": last.backend, "attempts": len(attempts), "not_retried_because": reason},
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
