"""What nobody wants is never started, in whatever moment of its life it was left."""

from __future__ import annotations

import pytest
import trio
from pipeline_house import event, failure, running
from trio.testing import MockClock, wait_all_tasks_blocked

from ai_ticket_daemon.events.outcome import Waste
from ai_ticket_daemon.events.state import EventState


@pytest.mark.parametrize("cancel_seconds", [0.0, 2.0])
async def test_an_event_left_while_it_is_claimed_is_never_started(
    cancel_seconds: float, autojump_clock: MockClock
) -> None:
    async with running() as house:
        house.store.claim_seconds = 1.0
        house.store.cancel_seconds = cancel_seconds
        submission = await house.pipeline.submit(event("left"))
        await trio.sleep(0.5)
        submission.abandon()
        await trio.sleep(5)
        assert house.pipeline.in_flight == 0
    assert house.primary.prompts == []
    assert house.ends.states == {"id-left": EventState.CANCELLED}


async def test_an_event_cancelled_while_it_is_claimed_is_never_started(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.store.claim_seconds = 1.0
        await house.pipeline.enqueue([event("cancelled")])
        await trio.sleep(0.5)
        status = await house.pipeline.cancel("id-cancelled")
        assert status is not None
        assert status.state is EventState.CANCELLED
        await trio.sleep(5)
        assert house.pipeline.in_flight == 0
    assert house.primary.prompts == []
    assert house.ends.states == {"id-cancelled": EventState.CANCELLED}


async def test_an_event_left_on_its_way_back_to_the_queue_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.primary.answers = [failure()]
        house.store.slowness_seconds = 0.2
        submission = await house.pipeline.submit(event("left"))
        await trio.sleep(1.1)
        assert (house.primary.prompts, house.primary.running) == (["left"], 0)
        assert house.pipeline.in_flight == 1
        submission.abandon()
        await trio.sleep(30)
    assert house.primary.prompts == ["left"]
    assert house.ends.states == {"id-left": EventState.CANCELLED}


@pytest.mark.parametrize("number", [1, 250])
async def test_events_left_in_the_queue_are_cancelled_however_many_they_are(
    number: int, autojump_clock: MockClock
) -> None:
    async with running() as house:
        house.primary.seconds = 60
        house.pipeline.pause()
        submissions = [await house.pipeline.submit(event(str(n))) for n in range(number)]
        for submission in submissions:
            submission.abandon()
        await wait_all_tasks_blocked()
        assert set(house.ends.states.values()) == {EventState.CANCELLED}
        assert len(house.ends.states) == number
        house.pipeline.unpause()
        await trio.sleep(5)
    assert house.primary.prompts == []


async def test_a_generation_ends_at_once_when_its_client_leaves(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.seconds = 60
        submission = await house.pipeline.submit(event("left"))
        await trio.sleep(1)
        submission.abandon()
        await wait_all_tasks_blocked()
        assert (house.primary.aborted, house.pipeline.in_flight) == (1, 0)
    assert [attempt.waste for attempt in house.ends.wasted] == [Waste.CLIENT_LEFT]


async def test_a_new_event_does_not_wake_those_who_wait_for_the_pool(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.pipeline.pause()
        await wait_all_tasks_blocked()
        seen = house.pool.changed.version
        await house.pipeline.enqueue([event("a")])
        house.pipeline.unpause()
        await wait_all_tasks_blocked()
        assert house.pipeline.in_flight == 1
        assert house.pool.changed.version == seen
