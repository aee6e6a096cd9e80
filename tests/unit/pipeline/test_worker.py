"""What a worker makes of an attempt: an outcome, a retry, or an error of this program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.failure import RetryRule
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.errors import ErrorCode, StoreUnavailable
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded
from ai_ticket_daemon.events.state import EventState
from tests.support.pipeline_house import PRIMARY, STANDBY, event, failure, running

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_one_failing_event_does_not_fail_the_others(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.answers = [None, failure(retry=RetryRule.FINAL)]
        outcomes = await house.pipeline.run_batch([event("a"), event("b"), event("c")])
    assert [type(o) for o in outcomes] == [Succeeded, Failed, Succeeded]


async def test_an_event_is_retried_after_a_backend_failure(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.answers = [failure(), failure()]
        outcome = await (await house.pipeline.submit(event())).outcome()
    assert isinstance(outcome, Succeeded)
    assert [a.error for a in outcome.attempts] == [ErrorCode.API_SERVER_ERROR] * 2 + [None]


async def test_attempts_are_used_up(autojump_clock: MockClock) -> None:
    async with running(PipelineConfig(max_attempts=3)) as house:
        house.primary.answers = [failure() for _ in range(9)]
        outcome = await (await house.pipeline.submit(event())).outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.API_SERVER_ERROR
    assert outcome.details == {
        "backend": "primary",
        "attempts": 3,
        "not_retried_because": "all 3 attempts are used up",
    }


async def test_busy_costs_no_attempt_and_waits_as_long_as_the_backend_asks(
    autojump_clock: MockClock,
) -> None:
    busy = failure(ErrorCode.API_RATE_LIMITED, RetryRule.BUSY, retry_after_seconds=7)
    async with running(PipelineConfig(max_attempts=1)) as house:
        house.primary.answers = [busy] * 5
        began = trio.current_time()
        outcome = await (await house.pipeline.submit(event())).outcome()
        assert trio.current_time() - began >= 5 * 7
    assert isinstance(outcome, Succeeded)


async def test_a_lost_backend_is_down_at_once_and_the_standby_answers(
    autojump_clock: MockClock,
) -> None:
    lost = failure(ErrorCode.API_CONNECTION_ERROR)
    async with running(servers=(PRIMARY, STANDBY)) as house:
        house.primary.answers = [lost]
        house.primary.probe_error = lost
        outcome = await (await house.pipeline.submit(event())).outcome()
    assert isinstance(outcome, Succeeded)
    assert [a.backend for a in outcome.attempts] == ["primary", "standby"]


async def test_a_primary_that_fails_at_everything_costs_each_event_one_attempt(
    autojump_clock: MockClock,
) -> None:
    async with running(servers=(PRIMARY, STANDBY)) as house:
        house.primary.answers = [failure() for _ in range(100)]
        outcomes = await house.pipeline.run_batch([event(str(n)) for n in range(6)])
    tried = [
        [a.backend for a in outcome.attempts]
        for outcome in outcomes
        if isinstance(outcome, Succeeded)
    ]
    # After three of them the primary is down.
    assert tried == [["primary", "standby"]] * 3 + [["standby"]] * 3


async def test_an_event_under_which_two_backends_died_is_set_aside(
    autojump_clock: MockClock,
) -> None:
    died = failure(ErrorCode.API_CONNECTION_ERROR, RetryRule.OVER_ONCE)
    async with running(servers=(PRIMARY, STANDBY)) as house:
        for client in house.clients.values():
            client.answers = [died]
        outcome = await (await house.pipeline.submit(event())).outcome()
    assert isinstance(outcome, Failed)
    assert outcome.details is not None
    assert outcome.details["not_retried_because"] == "2 backends were lost under this event"


async def test_a_generation_is_aborted_at_its_deadline(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.seconds = 100
        outcome = await (await house.pipeline.submit(event(seconds=3))).outcome()
        assert trio.current_time() == pytest.approx(3)
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DEADLINE_EXCEEDED
    assert house.primary.aborted == 1


async def test_a_stream_passes_each_piece_on_as_it_comes(autojump_clock: MockClock) -> None:
    async with running() as house:
        submission = await house.pipeline.submit(event("a b c d", stream=True))
        seen = [(text, round(trio.current_time(), 3)) async for text in submission.deltas()]
        outcome = await submission.outcome()
    assert seen == [("A", 0.5), (" B", 0.625), (" C", 0.75), (" D", 0.875)]
    assert isinstance(outcome, Succeeded)


async def test_a_failure_after_the_first_delta_is_not_retried(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.answers = [failure()]
        submission = await house.pipeline.submit(event("a b", stream=True))
        assert [text async for text in submission.deltas()] == ["A"]
        outcome = await submission.outcome()
    assert isinstance(outcome, Failed)
    assert len(house.primary.prompts) == 1


async def test_work_that_a_stop_interrupts_goes_back_to_the_queue_uncounted(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        await house.pipeline.submit(event("interrupted"))
        await trio.sleep(0.1)
        house.scope.cancel()
    record = await house.store.get("id-interrupted")
    assert record is not None
    assert record.state is EventState.QUEUED
    assert [(a.error, a.counted) for a in record.attempts] == [(ErrorCode.DRAINING, False)]
    assert house.primary.aborted == 1


async def test_a_fault_of_our_own_fails_its_event_only(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.answers = [ZeroDivisionError("bug")]
        outcomes = await house.pipeline.run_batch([event("a"), event("b")])
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].code is ErrorCode.INTERNAL_ERROR
    assert "bug" not in outcomes[0].message
    assert isinstance(outcomes[1], Succeeded)


async def test_an_event_under_which_the_daemon_died_too_often_is_set_aside(
    autojump_clock: MockClock,
) -> None:
    async with running(PipelineConfig(max_attempts=2)) as house:
        house.pipeline.pause()
        await house.pipeline.enqueue([event("poison")])
        lost = Attempt("primary", 0, 1, ErrorCode.INTERNAL_ERROR, "the daemon ended")
        lease = await house.store.claim(trio.current_time(), backend="primary", until=100)
        assert lease is not None
        await house.store.release(lease, due_at=0, attempts=[lost, lost])
        house.pipeline.unpause()
        await trio.sleep(5)
        status = await house.pipeline.status("id-poison")
    assert house.primary.prompts == []
    assert status is not None
    assert isinstance(status.outcome, Failed)
    assert status.outcome.details is not None
    assert status.outcome.details["not_retried_because"] == "all 2 attempts are used up"


async def test_an_outcome_is_kept_until_the_store_can_take_it(autojump_clock: MockClock) -> None:
    async with running() as house:
        submission = await house.pipeline.submit(event("a"))
        await trio.sleep(0.1)
        house.store.broken = True
        await trio.sleep(30)
        assert house.pipeline.in_flight == 1
        with pytest.raises(StoreUnavailable):
            await house.pipeline.submit(event("b"))
        house.store.broken = False
        assert isinstance(await submission.outcome(), Succeeded)
        assert isinstance((await house.pipeline.run_batch([event("c")]))[0], Succeeded)
    assert house.primary.prompts == ["a", "c"]
