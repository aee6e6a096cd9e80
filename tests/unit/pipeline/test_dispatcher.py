"""Which event is started when, and which is never started."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed, Succeeded, Waste
from ai_ticket_daemon.events.state import EventState
from tests.support.pipeline_house import PRIMARY, STANDBY, event, failure, running


async def test_one_slot_never_runs_two_generations_and_keeps_arrival_order(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        texts = [f"ticket {n}" for n in range(50)]
        outcomes = await house.pipeline.run_batch([event(text) for text in texts])
    assert [o.text for o in outcomes if isinstance(o, Succeeded)] == [t.upper() for t in texts]
    assert house.primary.prompts == texts
    assert house.primary.most_running == 1


async def test_a_backend_is_never_left_idle_while_events_wait(autojump_clock: MockClock) -> None:
    async with running() as house:
        began = trio.current_time()
        await house.pipeline.run_batch([event(str(n)) for n in range(100)])
        assert trio.current_time() - began == pytest.approx(100.0)


async def test_max_concurrency_bounds_what_runs_on_many_slots(autojump_clock: MockClock) -> None:
    server = ServerConfig(name="primary", url="http://127.0.0.1:1", max_in_flight=16)
    async with running(PipelineConfig(max_concurrency=3), (server,)) as house:
        await house.pipeline.run_batch([event(str(n)) for n in range(20)])
    assert house.primary.most_running == 3


async def test_urgent_events_go_first_and_equals_in_order(autojump_clock: MockClock) -> None:
    async with running() as house:
        first = await house.pipeline.submit(event("running"))
        await trio.sleep(0.1)
        others = [
            await house.pipeline.submit(event(text, priority=priority))
            for text, priority in [("late", 9), ("normal", 5), ("urgent", 0), ("normal 2", 5)]
        ]
        for submission in (first, *others):
            await submission.outcome()
    assert house.primary.prompts == ["running", "urgent", "normal", "normal 2", "late"]


@pytest.mark.parametrize("slowness_seconds", [0.7, 3.0])
async def test_an_event_is_claimed_anew_before_the_store_has_said_that_it_is_back(
    slowness_seconds: float, autojump_clock: MockClock
) -> None:
    async with running(servers=(PRIMARY, STANDBY)) as house:
        house.primary.answers = [failure()]
        house.store.slowness_seconds = slowness_seconds
        submission = await house.pipeline.submit(event())
        while house.clients["standby"].running == 0:
            await trio.sleep(0.1)
            house.pool.changed.notify()
        assert house.pipeline.in_flight == 1
        await trio.sleep(0.7)
        assert house.pipeline.in_flight == 1
        outcome = await submission.outcome()
        await trio.sleep(slowness_seconds)
        assert house.pipeline.in_flight == 0
    assert isinstance(outcome, Succeeded)


async def test_a_client_that_leaves_frees_the_slot_at_once(autojump_clock: MockClock) -> None:
    async with running() as house:
        submission = await house.pipeline.submit(event("left"))
        await trio.sleep(0.1)
        assert house.primary.running == 1
        submission.abandon()
        outcome = await (await house.pipeline.submit(event("next"))).outcome()
        assert trio.current_time() == pytest.approx(1.1)
    assert isinstance(outcome, Succeeded)
    assert house.primary.aborted == 1
    assert house.ends.states["id-left"] is EventState.CANCELLED


async def test_a_client_that_leaves_the_queue_is_never_generated_for(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        first = await house.pipeline.submit(event("first"))
        (await house.pipeline.submit(event("left"))).abandon()
        await first.outcome()
        await (await house.pipeline.submit(event("last"))).outcome()
    assert house.primary.prompts == ["first", "last"]
    assert house.ends.states["id-left"] is EventState.CANCELLED


async def test_work_past_its_deadline_is_never_started(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.seconds = 10
        first = await house.pipeline.submit(event("first"))
        late = await house.pipeline.submit(event("late", seconds=5))
        outcome = await late.outcome()
        assert trio.current_time() == pytest.approx(5, abs=1.1)
        await first.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DEADLINE_EXCEEDED
    assert house.primary.prompts == ["first"]
    assert house.ends.states["id-late"] is EventState.EXPIRED


async def test_waiting_events_start_when_the_backend_comes_back(autojump_clock: MockClock) -> None:
    lost = failure(ErrorCode.API_CONNECTION_ERROR)
    async with running() as house:
        house.primary.answers = [lost]
        house.primary.probe_error = lost
        submission = await house.pipeline.submit(event())
        await trio.sleep(100)
        assert len(house.primary.prompts) == 1
        house.primary.probe_error = None
        with trio.fail_after(3):
            assert isinstance(await submission.outcome(), Succeeded)


async def test_a_cancelled_generation_frees_its_slot_and_is_on_record(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        runs = await house.pipeline.submit(event("runs", seconds=1000))
        await trio.sleep(0.1)
        status = await house.pipeline.cancel("id-runs")
        outcome = await runs.outcome()
        assert status is not None
        assert status.state is EventState.CANCELLED
        assert isinstance(outcome, Failed)
        assert outcome.code is ErrorCode.CANCELLED
        assert [attempt.backend for attempt in outcome.attempts] == ["primary"]
        await trio.testing.wait_all_tasks_blocked()
        assert (house.primary.aborted, house.pipeline.in_flight) == (1, 0)
        assert await house.pipeline.cancel("id-runs") == status
        assert await house.pipeline.cancel("unknown") is None
    assert house.ends.states == {"id-runs": EventState.CANCELLED}


async def test_a_cancelled_event_is_never_started(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.enqueue([event("runs"), event("waits")])
        await trio.sleep(0.1)
        await house.pipeline.cancel("id-waits")
        await trio.sleep(5)
    assert house.primary.prompts == ["runs"]


async def test_a_lease_that_somebody_else_took_aborts_the_generation(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        house.primary.seconds = 60
        await house.pipeline.enqueue([event("a")])
        await trio.sleep(0.1)
        await house.store.cancel("id-a", 0, lambda attempts: Failed(ErrorCode.CANCELLED, "x"))
        await trio.sleep(StoreConfig().lease_seconds)
        assert house.pipeline.in_flight == 0
    assert house.primary.aborted == 1


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
        house.store.release_seconds = 0.2
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
