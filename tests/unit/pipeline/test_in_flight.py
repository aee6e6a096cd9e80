"""Whatever a backend made for nobody is told, once, with its tokens and its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.failure import RetryRule
from ai_ticket_daemon.backends.generation import Received
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed, Succeeded, Waste
from tests.support.pipeline_house import PRIMARY, STANDBY, event, failure, running

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.support.pipeline_house import House

FIVE = "one two three four five"
"""The fake needs half a second to begin, and a tenth for each word."""


def told(house: House) -> list[tuple[str, str, int | None]]:
    return [(a.backend, a.waste or a.error or "", a.tokens) for a in house.ends.wasted]


async def test_a_completion_that_somebody_gets_is_not_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        [outcome] = await house.pipeline.run_batch([event(FIVE)])
    assert isinstance(outcome, Succeeded)
    assert [attempt.tokens for attempt in outcome.attempts] == [5]
    assert told(house) == []


async def test_what_came_before_a_failure_is_wasted(autojump_clock: MockClock) -> None:
    async with running(servers=(PRIMARY, STANDBY)) as house:
        house.primary.answers = [None, None, failure(ErrorCode.API_CONNECTION_ERROR)]
        [outcome] = await house.pipeline.run_batch([event(FIVE)])
    first, second = outcome.attempts
    assert (first.tokens, first.retried, first.because) == (3, True, "another server can take it")
    assert (second.tokens, second.retried) == (5, None)
    assert told(house) == [("primary", "api_connection_error", 3)]
    assert house.ends.wasted[0].seconds == pytest.approx(0.8)


async def test_the_budget_is_named_where_it_allowed_a_retry(autojump_clock: MockClock) -> None:
    async with running(PipelineConfig(max_attempts=2)) as house:
        house.primary.answers = [failure(retry=RetryRule.SAME)] * 2
        [outcome] = await house.pipeline.run_batch([event("one")])
    assert [(a.retried, a.because) for a in outcome.attempts] == [
        (True, "the retry budget allowed it"),
        (False, "all 2 attempts are used up"),
    ]
    assert told(house) == [("primary", "api_server_error", 1)] * 2


async def test_a_busy_server_wastes_nothing(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.answers = [failure(ErrorCode.API_RATE_LIMITED, RetryRule.BUSY)]
        [outcome] = await house.pipeline.run_batch([event("one")])
    assert isinstance(outcome, Succeeded)
    assert outcome.attempts[0].is_busy
    assert told(house) == []


async def test_what_a_client_leaves_behind_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        submission = await house.pipeline.submit(event(FIVE))
        await trio.sleep(0.75)
        submission.abandon()
        await trio.testing.wait_all_tasks_blocked()
        status = await house.pipeline.status(submission.event_id)
    assert told(house) == [("primary", Waste.CLIENT_LEFT, 3)]
    assert status is not None
    assert [(a.retried, a.because) for a in status.attempts] == [(False, "the client left")]


async def test_what_an_operator_cancels_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.enqueue([event(FIVE)])
        await trio.sleep(0.75)
        await house.pipeline.cancel(f"id-{FIVE}")
        await trio.testing.wait_all_tasks_blocked()
    assert told(house) == [("primary", Waste.CANCELLED, 3)]


async def test_what_comes_too_late_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        [outcome] = await house.pipeline.run_batch([event(FIVE, seconds=0.65)])
    assert told(house) == [("primary", Waste.DEADLINE_EXCEEDED, 2)]
    assert [(a.tokens, a.because) for a in outcome.attempts] == [(2, "the deadline has passed")]


async def test_what_a_stop_interrupts_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.enqueue([event(FIVE)])
        await trio.sleep(0.75)
        house.scope.cancel()
    assert told(house) == [("primary", Waste.DAEMON_STOPPED, 3)]


async def test_what_another_daemon_took_over_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.seconds = 60
        await house.pipeline.enqueue([event("a")])
        await trio.sleep(0.1)
        await house.store.cancel("id-a", 0, lambda attempts: Failed(ErrorCode.CANCELLED, "x"))
        await trio.sleep(StoreConfig().lease_seconds)
    assert told(house) == [("primary", Waste.LEASE_LOST, 0)]


async def test_a_completion_whose_lease_was_lost_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.enqueue([event(FIVE)])
        await trio.sleep(0.75)
        await house.store.cancel(
            f"id-{FIVE}", 0, lambda attempts: Failed(ErrorCode.CANCELLED, "elsewhere")
        )
        await trio.sleep(0.5)
    assert told(house) == [("primary", Waste.LEASE_LOST, 5)]


async def test_a_completion_that_was_never_written_is_wasted(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.enqueue([event(FIVE)])
        await trio.sleep(0.1)
        house.store.broken = True
        await trio.sleep(5)
        house.scope.cancel()
    assert told(house) == [("primary", Waste.OUTCOME_UNWRITTEN, 5)]


async def test_an_attempt_tells_behind_how_many_it_waited(autojump_clock: MockClock) -> None:
    async with running() as house:
        outcomes = await house.pipeline.run_batch([event(text) for text in "abc"])
    assert [outcome.attempts[0].behind for outcome in outcomes] == [0, 1, 2]


def test_nothing_has_come_of_what_was_never_sent() -> None:
    assert (Received().tokens, Received().estimated) == (0, False)
