"""The pipeline on fake backends, with a clock of its own."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
from pipeline_house import PRIMARY, STANDBY, event, failure, keyed, running

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import (
    Disposition,
    ErrorCode,
    RequestRefused,
    StoreUnavailable,
)
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.events.status import EventStatus

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_an_event_becomes_a_completion(autojump_clock: MockClock) -> None:
    async with running() as house:
        outcome = await (await house.pipeline.submit(event("good day"))).outcome()
    assert isinstance(outcome, Succeeded)
    assert outcome.text == "GOOD DAY"
    assert outcome.backend == "primary"
    assert [a.error for a in outcome.attempts] == [None]
    assert house.ends.states == {"id-good day": EventState.SUCCEEDED}


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


async def test_one_failing_event_does_not_fail_the_others(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.answers = [None, failure(disposition=Disposition.FINAL)]
        outcomes = await house.pipeline.run_batch([event("a"), event("b"), event("c")])
    assert [type(o) for o in outcomes] == [Succeeded, Failed, Succeeded]


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
    busy = failure(ErrorCode.API_RATE_LIMITED, Disposition.BUSY, retry_after_seconds=7)
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
    died = failure(ErrorCode.API_CONNECTION_ERROR, Disposition.OVER_ONCE)
    async with running(servers=(PRIMARY, STANDBY)) as house:
        for client in house.clients.values():
            client.answers = [died]
        outcome = await (await house.pipeline.submit(event())).outcome()
    assert isinstance(outcome, Failed)
    assert outcome.details is not None
    assert outcome.details["not_retried_because"] == "2 backends were lost under this event"


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


async def test_a_full_queue_refuses_with_a_time_to_come_back(autojump_clock: MockClock) -> None:
    async with running(max_queued=1) as house:
        await house.pipeline.submit(event("runs"))
        await trio.sleep(0.1)
        await house.pipeline.submit(event("waits"))
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(event("too much"))
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert refused.value.retry_after_seconds


async def test_drain_runs_what_clients_wait_for_and_leaves_the_rest_in_the_queue(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        runs = await house.pipeline.submit(event("runs"))
        await trio.sleep(0.1)
        waits = await house.pipeline.submit(event("waits"))
        await house.pipeline.enqueue([event("later")])
        await house.pipeline.drain()
        assert trio.current_time() == pytest.approx(2.0)
        outcomes = await runs.outcome(), await waits.outcome()
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(event("new"))
        await trio.sleep(5)
        status = await house.pipeline.status("id-later")
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert refused.value.code is ErrorCode.DRAINING
    assert status is not None
    assert status.state is EventState.QUEUED


async def test_who_waits_beyond_the_drain_is_told_and_the_event_goes_on_later(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        await house.pipeline.submit(event("runs"))
        waits = await house.pipeline.submit(event("waits"))
        with trio.move_on_after(0.5):
            await house.pipeline.drain()
        house.pipeline.send_waiters_away()
        outcome = await waits.outcome()
        house.scope.cancel()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DRAINING
    record = await house.store.get("id-waits")
    assert record is not None
    assert record.state is EventState.QUEUED


async def test_a_client_that_leaves_ends_the_drain(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.probe_error = failure()
        await trio.sleep(10)
        waits = await house.pipeline.submit(event("waits", seconds=1000), fail_fast=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.pipeline.drain)
            await trio.sleep(5)
            assert nursery.child_tasks
            waits.abandon()
        assert trio.current_time() == 15


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


async def test_the_start_is_estimated_from_how_long_events_took(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.run_batch([event("measure")])
        await house.pipeline.enqueue([event(str(n)) for n in range(5)])
        await trio.sleep(0.1)
        [status] = await house.pipeline.enqueue([event("last")])
        assert isinstance(status, EventStatus)
        assert status.position == 5
        now = trio.current_time()
        assert status.estimated_start_at == pytest.approx(now + 5, abs=0.2)
        await trio.sleep(2)
        later = await house.pipeline.status("id-last")
        assert later is not None
        assert later.position == 3


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
        other = replace(keyed("b"), priority=1)
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


async def test_an_event_retried_by_the_operator_starts_with_fresh_attempts(
    autojump_clock: MockClock,
) -> None:
    async with running(PipelineConfig(max_attempts=1)) as house:
        house.primary.answers = [failure()]
        [failed] = await house.pipeline.run_batch([event("a")])
        assert isinstance(failed, Failed)
        assert await house.pipeline.retry("id-a") is not None
        await trio.sleep(5)
        status = await house.pipeline.status("id-a")
    assert status is not None
    assert isinstance(status.outcome, Succeeded)
    assert [attempt.counted for attempt in status.attempts] == [False, True]


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


async def test_an_event_whose_worker_crashed_is_run_again(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.pipeline.pause()
        await house.pipeline.enqueue([event("orphan")])
        assert await house.store.claim(trio.current_time()) is not None
        house.pipeline.unpause()
        await trio.sleep(StoreConfig().lease_seconds)
        status = await house.pipeline.status("id-orphan")
    assert status is not None
    assert isinstance(status.outcome, Succeeded)
    assert [attempt.error for attempt in status.attempts] == [ErrorCode.INTERNAL_ERROR, None]
