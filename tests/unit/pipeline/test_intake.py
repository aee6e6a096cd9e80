"""Which events are accepted, and who waits for which."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import structs

from ai_ticket_daemon.errors import (
    ErrorCode,
    RequestRefused,
)
from ai_ticket_daemon.events.outcome import Failed, Succeeded
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.events.status import EventStatus
from tests.support.pipeline_house import event, failure, keyed, running

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_outcomes_come_as_they_end_and_leaving_abandons_the_rest(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        batch = [event("slow", priority=9), event("fast", priority=0), event("never", priority=9)]
        async with aclosing(house.pipeline.iter_responses(batch)) as responses:
            async for event_id, _ in responses:
                assert event_id == "id-fast"
                break
        await trio.sleep(5)
        assert house.ends.states["id-never"] is EventState.CANCELLED
        assert house.primary.running == 0


async def test_without_a_usable_backend_new_events_are_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.primary.probe_error = failure(ErrorCode.API_CONNECTION_ERROR)
        await trio.sleep(60)
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(event())
    assert refused.value.code is ErrorCode.NO_BACKEND_AVAILABLE
    assert refused.value.retry_after_seconds


async def test_a_full_queue_refuses_with_a_time_to_come_back(autojump_clock: MockClock) -> None:
    async with running(max_queued=1) as house:
        await house.pipeline.submit(event("runs"))
        await trio.sleep(0.1)
        await house.pipeline.submit(event("waits"))
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(event("too much"))
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert refused.value.retry_after_seconds


async def test_two_events_of_one_batch_cannot_share_an_id(autojump_clock: MockClock) -> None:
    async with running() as house:
        with pytest.raises(ValueError, match="id of its own"):
            await house.pipeline.run_batch([event("same"), event("same")])


async def test_enqueued_events_run_although_nobody_waits(autojump_clock: MockClock) -> None:
    async with running() as house:
        first, second = await house.pipeline.enqueue([event("a"), event("b")])
        assert isinstance(first, EventStatus)
        assert isinstance(second, EventStatus)
        assert (first.position, second.position) == (1, 2)
        await trio.sleep(2.1)
        status = await house.pipeline.status("id-b")
    assert status is not None
    assert isinstance(status.outcome, Succeeded)


async def test_an_event_for_later_is_accepted_without_a_usable_backend(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.primary.probe_error = failure()
        await trio.sleep(10)
        submission = await house.pipeline.submit(event("a"), fail_fast=False)
        assert submission.status.estimated_start_at is None
        house.primary.probe_error = None
        assert isinstance(await submission.outcome(), Succeeded)


async def test_a_full_queue_says_how_long_the_backends_need_for_what_was_sent(
    autojump_clock: MockClock,
) -> None:
    async with running(max_queued=10) as house:
        await house.pipeline.run_batch([event("measure")])
        house.pipeline.pause("the test")
        await house.pipeline.enqueue([event("waits")])
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.enqueue([event(str(n)) for n in range(10)])
    assert refused.value.retry_after_seconds == pytest.approx(10, abs=0.1)


async def test_a_batch_that_no_queue_could_hold_is_refused_for_good(
    autojump_clock: MockClock,
) -> None:
    async with running(max_queued=10) as house:
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.enqueue([event(str(n)) for n in range(11)])
    assert refused.value.code is ErrorCode.BATCH_TOO_LARGE
    assert refused.value.details == {"max_queued": 10, "actual": 11}
    assert refused.value.retry_after_seconds is None


async def test_the_same_key_leads_to_the_one_event_and_its_outcome(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        first = await house.pipeline.submit(keyed("a"))
        await trio.sleep(0.1)
        second = await house.pipeline.submit(keyed("b"))
        assert (second.event_id, second.replayed) == (first.event_id, True)
        assert await second.outcome() == await first.outcome()
        third = await house.pipeline.submit(keyed("c"))
        assert await third.outcome() == await first.outcome()
        [listed] = await house.pipeline.enqueue([keyed("d")])
        assert isinstance(listed, EventStatus)
        assert listed.outcome == await first.outcome()
        pieces = [text async for text in third.deltas()]
    assert house.primary.prompts == ["hello"]
    assert pieces == ["HELLO"]


async def test_a_key_with_another_payload_is_refused(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.submit(keyed("a"))
        other = structs.replace(keyed("b"), priority=1)
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(other)
        [outcome] = await house.pipeline.run_batch([other])
    assert refused.value.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.IDEMPOTENCY_CONFLICT


async def test_a_batch_that_repeats_a_key_runs_it_once(autojump_clock: MockClock) -> None:
    async with running() as house:
        outcomes = await house.pipeline.run_batch([keyed("a"), event("x"), keyed("b")])
    assert [o.text for o in outcomes if isinstance(o, Succeeded)] == ["HELLO", "X", "HELLO"]
    assert house.primary.prompts == ["hello", "x"]


async def test_who_can_come_back_with_a_key_does_not_cancel_by_leaving(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        (await house.pipeline.submit(keyed("a"))).abandon()
        again = await house.pipeline.submit(keyed("b"))
        assert isinstance(await again.outcome(), Succeeded)
    assert house.primary.aborted == 0


async def test_an_event_goes_on_while_anybody_waits_for_it(autojump_clock: MockClock) -> None:
    async with running() as house:
        first = await house.pipeline.submit(event("a"))
        await trio.sleep(0.1)
        second = await house.pipeline.watch("id-a")
        assert second is not None
        first.abandon()
        assert isinstance(await second.outcome(), Succeeded)
        assert await house.pipeline.watch("unknown") is None


async def test_who_only_looks_on_does_not_cancel_by_leaving(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.enqueue([event("a")])
        looker = await house.pipeline.watch("id-a")
        assert looker is not None
        looker.release()
        await trio.sleep(2)
        status = await house.pipeline.status("id-a")
    assert status is not None
    assert status.state is EventState.SUCCEEDED
