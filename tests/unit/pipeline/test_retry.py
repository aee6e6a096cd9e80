from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.backends.failure import BackendError, Failure, HealthEvent, RetryRule
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Attempt
from ai_ticket_daemon.pipeline.retry import (
    GiveUp,
    Retry,
    RetryBudget,
    decide,
    to_avoid,
    with_attempt,
)

SETTINGS = PipelineConfig(max_attempts=3, backoff_seconds=1, backoff_max_seconds=8)


def error(
    retry: RetryRule = RetryRule.OVER, retry_after_seconds: float | None = None
) -> BackendError:
    return BackendError(
        Failure(ErrorCode.API_SERVER_ERROR, retry, HealthEvent.FAILED),
        "it failed",
        retry_after_seconds=retry_after_seconds,
    )


def attempts(count: int, *, counted: bool = True, died: int = 0) -> list[Attempt]:
    return [
        Attempt("primary", 0, 1, counted=counted, backend_died=index < died)
        for index in range(count)
    ]


def after(
    failed: BackendError,
    history: list[Attempt],
    *,
    jitter: float = 1.0,
    seconds_left: float = 100,
    delta_passed_on: bool = False,
    pause_seconds: float = 0.0,
    elsewhere: bool = False,
    settings: PipelineConfig = SETTINGS,
) -> Retry | GiveUp:
    return decide(
        failed,
        history,
        settings=settings,
        jitter=jitter,
        seconds_left=seconds_left,
        delta_passed_on=delta_passed_on,
        pause_seconds=pause_seconds,
        elsewhere=elsewhere,
    )


def test_the_backoff_doubles_up_to_its_limit() -> None:
    many = replace(SETTINGS, max_attempts=99)
    delays = [after(error(), attempts(n), settings=many) for n in range(1, 7)]
    assert delays == [Retry(1), Retry(2), Retry(4), Retry(8), Retry(8), Retry(8)]


def test_waiting_for_a_busy_backend_does_not_lengthen_the_backoff() -> None:
    assert after(error(), attempts(40, counted=False) + attempts(1)) == Retry(1)


def test_a_busy_backend_is_waited_for_as_long_as_it_is_left_alone() -> None:
    assert after(error(RetryRule.BUSY), attempts(50, counted=False), pause_seconds=3) == Retry(3)


def test_another_backend_is_tried_at_once() -> None:
    assert after(error(), attempts(2), elsewhere=True) == Retry(0)
    assert after(error(RetryRule.OVER_ONCE), attempts(1, died=1), elsewhere=True) == Retry(0)
    assert after(error(RetryRule.SAME), attempts(1), elsewhere=True) == Retry(1)


def test_an_event_avoids_the_backends_that_failed_it() -> None:
    history = [Attempt("a", 0, 1, elsewhere=True), Attempt("b", 0, 1), Attempt("a", 0, 1)]
    assert to_avoid(history) == {"a"}


def test_busy_answers_in_a_row_are_kept_as_one() -> None:
    busy = Attempt("a", 1, 2, error=ErrorCode.API_RATE_LIMITED, counted=False)
    failed = Attempt("a", 5, 6, error=ErrorCode.API_SERVER_ERROR)
    history: tuple[Attempt, ...] = ()
    for attempt in (busy, replace(busy, started_at=3, ended_at=4), failed, busy):
        history = with_attempt(history, attempt)
    assert history == (replace(busy, ended_at=4), failed, busy)


def test_the_delay_is_a_random_share_of_the_backoff() -> None:
    assert after(error(), attempts(2), jitter=0.25) == Retry(0.5)
    assert after(error(), attempts(2), jitter=0.0) == Retry(0.0)


def test_the_backend_is_given_the_time_it_asks_for() -> None:
    assert after(error(retry_after_seconds=20), attempts(1)) == Retry(20)
    assert after(error(retry_after_seconds=0.1), attempts(1)) == Retry(1)


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (after(error(RetryRule.FINAL), attempts(1)), "no retry can help"),
        (after(error(), attempts(3)), "all 3 attempts are used up"),
        (
            after(error(), attempts(1), seconds_left=0.5),
            "the deadline leaves no time for another attempt",
        ),
        (
            after(error(), attempts(1), delta_passed_on=True),
            "a part of the completion was already delivered",
        ),
        (
            after(error(RetryRule.OVER_ONCE), attempts(2, died=2)),
            "2 backends were lost under this event",
        ),
    ],
)
def test_what_is_not_tried_again(decision: Retry | GiveUp, reason: str) -> None:
    assert decision == GiveUp(reason)


def test_one_lost_backend_allows_one_more_try() -> None:
    assert isinstance(after(error(RetryRule.OVER_ONCE), attempts(1, died=1)), Retry)


def test_busy_answers_do_not_use_up_attempts() -> None:
    assert isinstance(after(error(RetryRule.BUSY), attempts(50, counted=False)), Retry)


def test_retries_are_bounded_to_a_share_of_the_traffic() -> None:
    budget = RetryBudget(window_seconds=10, floor=2)
    for _ in range(100):
        budget.started(0.0)
    assert sum(budget.take(1.0, 0.2) for _ in range(100)) == 22


def test_a_little_traffic_may_always_retry_a_few_times() -> None:
    budget = RetryBudget(window_seconds=10, floor=2)
    budget.started(0.0)
    assert [budget.take(0.0, 0.2) for _ in range(3)] == [True, True, True]
    assert not budget.take(0.0, 0.2)


def test_the_retry_budget_heals_with_time() -> None:
    budget = RetryBudget(window_seconds=10, floor=1)
    assert budget.take(0.0, 0.0)
    assert not budget.take(9.9, 0.0)
    assert budget.take(10.0, 0.0)
