"""Whether a failed attempt is followed by another one, and when: rules without clock and I/O."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import HealthEvent, RetryRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ai_ticket_daemon.backends.failure import BackendError
    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.events.outcome import Attempt

_AWAY = frozenset({HealthEvent.LOST, HealthEvent.RELOADING})
_GOES_OVER = frozenset({RetryRule.OVER, RetryRule.OVER_ONCE})
MAX_DEATHS = 2
"""An event under which this many backends were lost counts as poison: it is tried no more."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after ``delay_seconds``; ``reason`` is a word on why that is allowed."""

    delay_seconds: float
    reason: str = field(default="the retry budget allowed it", compare=False)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt, for this reason."""

    reason: str


def decide(
    error: BackendError,
    attempts: Sequence[Attempt],
    *,
    settings: PipelineConfig,
    jitter: float,
    seconds_left: float,
    delta_passed_on: bool,
    pause_seconds: float = 0.0,
    elsewhere: bool = False,
) -> Retry | GiveUp:
    """Decide what follows a failed attempt.

    Full jitter: the delay is a random share of the exponential backoff, so that events which
    failed together do not come back together (Brooker, "Exponential Backoff And Jitter", 2015).

    Args:
        error: how the last attempt failed.
        attempts: all attempts of the event, the last one included.
        settings: ``max_attempts`` and the backoff.
        jitter: a random number from 0 to 1.
        seconds_left: until the event's deadline.
        delta_passed_on: True if the client has already received a part of the completion.
        pause_seconds: how long the backend, if it was busy, gets nothing from anybody.
        elsewhere: True if another backend can take the event: then there is nothing to wait for.
    """
    if delta_passed_on:
        return GiveUp("a part of the completion was already delivered")
    if error.failure.retry is RetryRule.FINAL:
        return GiveUp("no retry can help")
    spent = used_up(attempts, settings=settings)
    if spent is not None:
        return GiveUp(spent)
    counted = sum(attempt.counted for attempt in attempts)
    doubled = settings.backoff_seconds * 2 ** max(0, counted - 1)
    backoff = jitter * min(settings.backoff_max_seconds, doubled)
    backoff_seconds = max(backoff, error.retry_after_seconds or 0.0)
    if error.failure.retry is RetryRule.BUSY:
        retry = Retry(pause_seconds, "a busy server costs no attempt")
    elif elsewhere and goes_over(error):
        retry = Retry(0.0, "another server can take it")
    elif error.failure.health_event in _AWAY:
        retry = Retry(backoff_seconds, "a lost server gets no load from a retry")
    else:
        retry = Retry(backoff_seconds)
    if retry.delay_seconds >= seconds_left:
        return GiveUp("the deadline leaves no time for another attempt")
    return retry


def used_up(attempts: Sequence[Attempt], *, settings: PipelineConfig) -> str | None:
    """Return why an event with these attempts behind it gets no further one; None if it does.

    Asked before each attempt, too: an event under which this daemon died again and again must not
    be what kills the next one.
    """
    if sum(attempt.backend_died for attempt in attempts) >= MAX_DEATHS:
        return f"{MAX_DEATHS} backends were lost under this event"
    if sum(attempt.counted for attempt in attempts) >= settings.max_attempts:
        return f"all {settings.max_attempts} attempts are used up"
    return None


def with_attempt(attempts: tuple[Attempt, ...], attempt: Attempt) -> tuple[Attempt, ...]:
    """Return ``attempts`` and one more; busy answers of one backend in a row are kept as one.

    An event may meet hundreds of them, and they differ in their time only.
    """
    if attempts and attempt.is_busy:
        last = attempts[-1]
        if last.is_busy and (last.backend, last.error) == (attempt.backend, attempt.error):
            attempt = replace(
                attempt, started_at=last.started_at, behind=last.behind, ahead_of=last.ahead_of
            )
            return (*attempts[:-1], attempt)
    return (*attempts, attempt)


def to_avoid(attempts: Iterable[Attempt]) -> frozenset[str]:
    """Return the backends on which the event has shown that it had better go elsewhere."""
    return frozenset(attempt.backend for attempt in attempts if attempt.elsewhere)


def goes_over(error: BackendError) -> bool:
    """Whether the next attempt is better made on another backend."""
    return error.failure.retry in _GOES_OVER


class Retries:
    """Decides what follows a failed attempt, within the retry budget.

    Args:
        settings: the ``[pipeline]`` section in force now.
        jitter: gives a random number from 0 to 1.
    """

    def __init__(
        self,
        settings: Callable[[], PipelineConfig],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._jitter = jitter
        self._budget = RetryBudget()

    def started(self, now: float) -> None:
        """Note that an event was started for the first time."""
        self._budget.started(now)

    def spent(self, attempts: Sequence[Attempt]) -> str | None:
        """Return why an event with these attempts gets no further one; None if it does."""
        return used_up(attempts, settings=self._settings())

    def after(
        self,
        error: BackendError,
        attempts: Sequence[Attempt],
        *,
        now: float,
        deadline_at: float,
        delta_passed_on: bool,
        pause_seconds: float,
        elsewhere: bool,
    ) -> Retry | GiveUp:
        """Decide what follows the last of ``attempts``, which failed; see :func:`decide`."""
        settings = self._settings()
        decision = decide(
            error,
            attempts,
            settings=settings,
            jitter=self._jitter(),
            seconds_left=deadline_at - now,
            delta_passed_on=delta_passed_on,
            pause_seconds=pause_seconds,
            elsewhere=elsewhere,
        )
        # The budget protects a sick backend from more load; one that is lost gets none anyway.
        spared = error.failure.health_event in _AWAY or (elsewhere and goes_over(error))
        costs_budget = isinstance(decision, Retry) and attempts[-1].counted and not spared
        if costs_budget and not self._budget.take(now, settings.retry_budget):
            return GiveUp("too many events are being retried at once")
        return decision


class RetryBudget:
    """Bounds retries to a share of recent traffic, so that a sick backend is not multiplied.

    Within a sliding window the retries may be at most ``ratio`` of the events started, and always
    a few (``floor``), or little traffic could never retry. The idea is Finagle's.
    """

    def __init__(self, *, window_seconds: float = 10.0, floor: int = 10) -> None:
        self._window_seconds = window_seconds
        self._floor = floor
        self._starts: deque[float] = deque()
        self._retries: deque[float] = deque()

    def started(self, now: float) -> None:
        """Note that an event was started for the first time."""
        self._forget(now)
        self._starts.append(now)

    def take(self, now: float, ratio: float) -> bool:
        """Take one retry from the budget; False if there is none left."""
        self._forget(now)
        if len(self._retries) >= self._floor + ratio * len(self._starts):
            return False
        self._retries.append(now)
        return True

    def _forget(self, now: float) -> None:
        for times in (self._starts, self._retries):
            while times and times[0] <= now - self._window_seconds:
                times.popleft()
