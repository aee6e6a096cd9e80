"""What every event store promises; each test runs on each implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.outcome import Attempt, Failed
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import KEPT_CHANGES, Change, EventFilter
from tests.support.store.store_support import (
    BROKEN,
    DONE,
    Limit,
    claim,
    claimed,
    event,
    gone,
    state,
)

if TYPE_CHECKING:
    from ai_ticket_daemon.store.port import EventStore


KEPT = ("queued", "running", "succeeded", "failed", "cancelled", "expired")


async def test_an_event_comes_back_just_as_it_was_submitted(store: EventStore) -> None:
    whole = event(
        "a",
        "ünï\n\0code",
        priority=3,
        stream=True,
        metadata={"n": 10**30, "deep": [{"x": None}]},
        trace_context={"traceparent": "00-1"},
        owner="alice",
        idempotency_key="k",
    )
    await store.submit([whole], owned=True)
    record = await store.get("a")
    assert record is not None
    assert record.event == whole
    assert (record.state, record.position, record.outcome) == (EventState.QUEUED, 1, None)
    assert await store.get("b") is None


async def test_events_are_claimed_by_priority_then_in_order(store: EventStore) -> None:
    await store.submit([event("a"), event("b"), event("urgent", priority=0)], owned=False)
    assert [(await claimed(store)).event.event_id for _ in range(3)] == ["urgent", "a", "b"]
    assert await claim(store) is None


async def test_an_event_submitted_after_an_empty_claim_is_found(store: EventStore) -> None:
    assert await claim(store) is None
    await store.submit([event("a")], owned=False)
    assert (await claimed(store)).event.event_id == "a"


async def test_a_released_event_keeps_its_place_and_waits_for_its_time(store: EventStore) -> None:
    await store.submit([event("a"), event("b")], owned=False)
    lease = await claimed(store)
    attempt = Attempt("primary", 0, 1, error=ErrorCode.API_SERVER_ERROR)
    assert await store.release(lease, due_at=5, attempts=[attempt])
    assert await store.next_due() == 0
    assert (await claimed(store, 1)).event.event_id == "b"
    assert await claim(store, 4.9) is None
    assert await store.next_due() == 5
    assert await store.oldest_queued_at() == 0
    again = await claimed(store, 5)
    assert again.event.event_id == "a"
    assert again.attempts == (attempt,)
    assert again.token != lease.token


async def test_an_outcome_is_written_once_and_a_lost_lease_writes_nothing(
    store: EventStore,
) -> None:
    await store.submit([event("a")], owned=False)
    lost = await claimed(store)
    assert await store.release(lost, due_at=0, attempts=[])
    lease = await claimed(store)
    assert not await store.complete(lost, EventState.FAILED, BROKEN, 1)
    assert not await store.release(lost, due_at=0, attempts=[])
    assert await store.complete(lease, EventState.SUCCEEDED, DONE, 2)
    assert not await store.complete(lease, EventState.FAILED, BROKEN, 3)
    assert await store.complete(lease, EventState.SUCCEEDED, DONE, 4)
    record = await store.get("a")
    assert record is not None
    assert (record.state, record.outcome, record.attempts) == (
        EventState.SUCCEEDED,
        DONE,
        DONE.attempts,
    )


async def test_cancelling_tells_what_the_event_was_doing_and_ends_it_once(
    store: EventStore,
) -> None:
    await store.submit([event("queued"), event("running"), event("ended")], owned=False)
    queued = await store.cancel("queued", 1, gone)
    assert queued is not None
    assert queued[0] is EventState.QUEUED
    assert queued[1].outcome == gone(())
    lease = await claimed(store)
    running = await store.cancel("running", 1, gone)
    assert running is not None
    assert running[0] is EventState.RUNNING
    assert not await store.complete(lease, EventState.SUCCEEDED, DONE, 2)
    await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 2)
    ended = await store.cancel("ended", 3, gone)
    assert ended is not None
    assert ended[0] is EventState.SUCCEEDED
    assert ended[1].outcome == DONE
    assert await store.cancel("unknown", 3, gone) is None
    assert await claim(store) is None


async def test_an_event_that_comes_back_after_its_deadline_expires(store: EventStore) -> None:
    await store.submit([event("late", deadline_at=10.0)], owned=False)
    lease = await claimed(store, 1)
    assert await store.expire(11, 10) == []
    assert await store.release(lease, due_at=11, attempts=())
    [record] = await store.expire(11, 10)
    assert record.event.event_id == "late"


async def test_expired_events_are_never_claimed(store: EventStore) -> None:
    await store.submit([event("late", deadline_at=10), event("fine")], owned=False)
    assert (await claimed(store, 10)).event.event_id == "fine"
    assert await store.expire(9.9, 10) == []
    [record] = await store.expire(10, 10)
    assert record.event.event_id == "late"
    assert record.state is EventState.EXPIRED
    assert record.outcome is not None
    assert record.outcome.code is ErrorCode.DEADLINE_EXCEEDED  # type: ignore[union-attr]
    assert await state(store, "late") is EventState.EXPIRED
    assert await store.expire(10, 10) == []


async def test_expiring_stops_at_its_limit_and_goes_on_later(store: EventStore) -> None:
    await store.submit([event(str(n), deadline_at=1) for n in range(5)], owned=False)
    assert [len(await store.expire(2, 3)) for _ in range(3)] == [3, 2, 0]


async def test_what_a_waiting_event_tried_last_is_part_of_its_expiry(store: EventStore) -> None:
    await store.submit([event("a", deadline_at=10)], owned=False)
    attempt = Attempt("primary", 0, 1, error=ErrorCode.API_SERVER_ERROR, message="it broke")
    await store.release(await claimed(store), due_at=20, attempts=[attempt])
    [record] = await store.expire(11, 10)
    assert record.attempts == (attempt,)
    assert record.outcome is not None
    assert record.outcome.details == {  # type: ignore[union-attr]
        "last_error": "api_server_error",
        "last_message": "it broke",
    }


async def test_positions_count_by_priority_then_in_order(store: EventStore) -> None:
    receipts = await store.submit([event("a"), event("b"), event("c")], owned=False)
    assert [receipt.position for receipt in receipts] == [1, 2, 3]
    [urgent] = await store.submit([event("urgent", priority=0)], owned=False)
    assert urgent.position == 1
    records = [await store.get(name) for name in ("urgent", "a", "b", "c")]
    assert [record.position for record in records if record] == [1, 2, 3, 4]
    await store.cancel("a", 0, gone)
    record = await store.get("c")
    assert record is not None
    assert record.position == 3


async def test_a_full_queue_accepts_all_of_a_submission_or_nothing(
    store: EventStore, limit: Limit
) -> None:
    limit.max_queued = 2
    await store.submit([event("a")], owned=False)
    with pytest.raises(RequestRefused) as refused:
        await store.submit([event("b"), event("c")], owned=False)
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert refused.value.details == {"queued": 1, "max_queued": 2}
    counts = await store.counts()
    assert (counts.states[EventState.QUEUED], counts.accepted) == (1, 1)
    await store.submit([event("b")], owned=False)


async def test_the_same_key_and_payload_lead_to_the_same_event(
    store: EventStore, limit: Limit
) -> None:
    first = event("a", owner="alice", idempotency_key="k")
    again = event("b", owner="alice", idempotency_key="k", submitted_at=5, deadline_at=50)
    await store.submit([first], owned=False)
    limit.max_queued = 1  # a replay needs no room
    [receipt] = await store.submit([again], owned=False)
    assert (receipt.event_id, receipt.replayed) == ("a", True)
    assert await store.get("b") is None
    await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 1)
    [late] = await store.submit([again], owned=False)
    assert (late.event_id, late.replayed) == ("a", True)


async def test_a_key_with_another_payload_is_a_conflict_for_that_item_alone(
    store: EventStore,
) -> None:
    await store.submit([event("a", owner="alice", idempotency_key="k")], owned=False)
    other = event("b", "something else", owner="alice", idempotency_key="k")
    fresh, conflict = await store.submit([event("c"), other], owned=False)
    assert fresh.refusal is None
    assert conflict.refusal is not None
    assert conflict.refusal.code is ErrorCode.IDEMPOTENCY_CONFLICT
    assert await store.get("b") is None
    assert await state(store, "c") is EventState.QUEUED


async def test_a_key_belongs_to_its_owner_and_holds_within_a_batch(store: EventStore) -> None:
    receipts = await store.submit(
        [
            event("a", owner="alice", idempotency_key="k"),
            event("b", owner="bob", idempotency_key="k"),
            event("c", owner="alice", idempotency_key="k"),
        ],
        owned=False,
    )
    assert [(r.event_id, r.replayed) for r in receipts] == [("a", False), ("b", False), ("a", True)]
    assert (await store.counts()).accepted == 2


async def test_a_failed_event_can_be_retried_with_all_its_time_and_attempts(
    store: EventStore,
) -> None:
    await store.submit([event("a", deadline_at=60)], owned=False)
    await store.complete(await claimed(store), EventState.FAILED, BROKEN, 50)
    record = await store.retry("a", 1000)
    assert record is not None
    assert (record.state, record.outcome, record.position) == (EventState.QUEUED, None, 1)
    assert record.event.deadline_at == 1060
    lease = await claimed(store, 1000)
    [attempt] = lease.attempts
    assert (attempt.error, attempt.counted) == (ErrorCode.API_SERVER_ERROR, False)
    assert await store.complete(lease, EventState.SUCCEEDED, DONE, 1001)
    assert (await store.counts()).difference == 0


async def test_an_event_retried_twice_has_the_time_it_was_given_and_no_more(
    store: EventStore,
) -> None:
    await store.submit([event("a", timeout_seconds=100.0)], owned=False)
    for now in (10.0, 1000.0):
        lease = await claimed(store, now)
        await store.complete(lease, EventState.FAILED, BROKEN, now + 1)
        record = await store.retry("a", now + 990.0)
        assert record is not None
        assert record.event.deadline_at == now + 990.0 + 100.0


async def test_time_given_back_moves_deadlines_by_what_each_event_waited_of_it(
    store: EventStore,
) -> None:
    before = event("before", submitted_at=0.0, deadline_at=100.0, timeout_seconds=100.0)
    during = event("during", submitted_at=60.0, deadline_at=160.0, timeout_seconds=100.0)
    after = event("after", submitted_at=90.0, deadline_at=190.0, timeout_seconds=100.0)
    running = event("running", priority=0, submitted_at=0.0, deadline_at=100.0)
    await store.submit([before, during, after, running], owned=False)
    held = await claimed(store)
    assert held.event.event_id == "running"
    assert await store.give_back_time(50.0, 90.0) == 2
    deadlines = {}
    for event_id in ("before", "during", "after", "running"):
        record = await store.get(event_id)
        assert record is not None
        deadlines[event_id] = record.event.deadline_at
    assert deadlines == {"before": 140.0, "during": 190.0, "after": 190.0, "running": 100.0}
    page = await store.page(EventFilter(event_id="before"), below=None, limit=1)
    assert page.events[0].deadline_at == 140.0
    assert await store.expire(139.0, 10) == []
    assert (await claimed(store, 139.0)).event.deadline_at == 140.0


async def test_an_event_that_was_too_late_can_be_claimed_when_it_gets_time_back(
    store: EventStore,
) -> None:
    await store.submit([event("a")], owned=False)
    assert await claim(store, 150.0) is None
    await store.give_back_time(20.0, 150.0)
    assert (await claimed(store, 150.0)).event.event_id == "a"


async def test_an_expired_event_is_told_the_time_it_was_given_not_that_with_what_was_given_back(
    store: EventStore,
) -> None:
    await store.submit([event("a", timeout_seconds=100.0)], owned=False)
    await store.give_back_time(0.0, 500.0)
    [expired] = await store.expire(600.0, 1)
    assert isinstance(expired.outcome, Failed)
    assert "within the 100 s" in expired.outcome.message


async def test_only_failed_events_are_retried(store: EventStore) -> None:
    await store.submit([event("a")], owned=False)
    await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 1)
    record = await store.retry("a", 2)
    assert record is not None
    assert record.outcome == DONE
    assert await store.retry("unknown", 2) is None


async def test_what_ended_long_ago_is_forgotten_and_still_counted(store: EventStore) -> None:
    keyed = event("b", idempotency_key="k")
    await store.submit([event("a"), keyed, event("c")], owned=False)
    for ended_at in (10, 20):
        await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, ended_at)
    assert await store.prune(10, 100) == 0
    assert await store.prune(20.5, 1) == 1
    assert await store.get("a") is None
    assert await store.prune(20.5, 100) == 1
    counts = await store.counts()
    assert (counts.accepted, counts.ended, counts.difference) == (3, 2, 0)
    assert await state(store, "c") is EventState.QUEUED
    [receipt] = await store.submit([keyed], owned=False)
    assert not receipt.replayed


async def test_leases_are_held_until_the_event_leaves_its_worker(store: EventStore) -> None:
    await store.submit([event("a"), event("b")], owned=False)
    first, second = await claimed(store), await claimed(store)
    assert await store.extend(60) == {"a": first.token, "b": second.token}
    record = await store.get("a")
    assert record is not None
    assert (record.state, record.backend) == (EventState.RUNNING, "primary")
    await store.release(first, due_at=0, attempts=[])
    await store.complete(second, EventState.SUCCEEDED, DONE, 1)
    assert await store.extend(60) == {}


async def test_outcomes_of_several_events_at_once(store: EventStore) -> None:
    await store.submit([event("a"), event("b"), event("c")], owned=False)
    await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 1)
    await store.complete(await claimed(store), EventState.FAILED, BROKEN, 1)
    assert await store.outcomes(["a", "b", "c", "unknown"]) == {"a": DONE, "b": BROKEN}


async def test_counts_know_every_state(store: EventStore) -> None:
    counts = await store.counts()
    assert [state.value for state in counts.states] == list(KEPT)
    assert set(counts.states.values()) == {0}
    assert await store.next_due() is None
    assert await store.oldest_queued_at() is None


async def test_small_notes_are_kept(store: EventStore) -> None:
    assert await store.recall("pin") is None
    await store.remember("pin", "standby")
    await store.remember("pin", "primary")
    assert await store.recall("pin") == "primary"


async def test_events_are_listed_newest_first_a_page_at_a_time(store: EventStore) -> None:
    await store.submit([event(name) for name in "abcde"], owned=False)
    first = await store.page(EventFilter(), below=None, limit=2)
    rest = await store.page(EventFilter(), below=first.below, limit=9)
    assert [e.event_id for e in first.events] == ["e", "d"]
    assert [e.event_id for e in rest.events] == ["c", "b", "a"]
    assert [e.ahead for e in rest.events] == [2, 1, 0]
    assert rest.below is None


async def test_a_summary_tells_where_and_how_an_event_ended(store: EventStore) -> None:
    await store.submit([event("a", owner="alice", priority=2, submitted_at=1.0)], owned=False)
    lease = await claimed(store, 3)
    [running] = (await store.page(EventFilter(), below=None, limit=9)).events
    assert (running.backend, running.claimed_at, running.ended_at) == ("primary", 3, None)
    await store.complete(lease, EventState.FAILED, BROKEN, 7)
    [ended] = (await store.page(EventFilter(event_id="a"), below=None, limit=9)).events
    assert (ended.state, ended.error, ended.ended_at) == (EventState.FAILED, "api_server_error", 7)
    assert (ended.owner, ended.priority, ended.submitted_at) == ("alice", 2, 1.0)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EventFilter(), "dcba"),
        (EventFilter(states=frozenset({EventState.FAILED, EventState.QUEUED})), "dba"),
        (EventFilter(states=frozenset({EventState.SUCCEEDED})), "c"),
        (EventFilter(error="api_server_error"), "a"),
        (EventFilter(owner="bob"), "db"),
        (EventFilter(submitted_after=2), "dc"),
        (EventFilter(submitted_before=2), "ba"),
        (EventFilter(event_id="b"), "b"),
        (EventFilter(event_id="b", owner="alice"), ""),
    ],
)
async def test_a_filter_lets_through_what_meets_all_of_it(
    store: EventStore, wanted: EventFilter, found: str
) -> None:
    names = {"a": "alice", "b": "bob", "c": "alice", "d": "bob"}
    events = [event(n, owner=o, submitted_at=float(i)) for i, (n, o) in enumerate(names.items())]
    await store.submit([events[0], events[2]], owned=False)
    await store.complete(await claimed(store), EventState.FAILED, BROKEN, 5)
    await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 5)
    await store.submit([events[1], events[3]], owned=False)
    listed = (await store.page(wanted, below=None, limit=9)).events
    assert "".join(sorted((e.event_id for e in listed), reverse=True)) == found


async def test_only_what_has_ended_can_be_forgotten(store: EventStore) -> None:
    await store.submit([event("a"), event("b")], owned=False)
    await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 5)
    assert await store.forget(["a", "b", "unknown"]) == 1
    assert await store.get("a") is None
    assert await state(store, "b") is EventState.QUEUED
    counts = await store.counts()
    assert (counts.difference, counts.states[EventState.SUCCEEDED]) == (0, 1)
    assert await store.prune(100, 10) == 0


async def test_changes_are_kept_in_order_and_only_the_last_ones(store: EventStore) -> None:
    await store.note_changes([Change(float(n), f"change {n}") for n in range(KEPT_CHANGES)])
    assert await store.changes(5, 7) == [Change(n, f"change {n}") for n in (5, 6, 7)]
    await store.note_changes([Change(5.5, "late"), Change(9999.0, "new")])
    assert await store.changes(0, 3) == [Change(2.0, "change 2"), Change(3.0, "change 3")]
    assert len(await store.changes(0, 9999)) == KEPT_CHANGES
