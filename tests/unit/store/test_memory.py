from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded, Usage
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.memory import MemoryStore

if TYPE_CHECKING:
    from ai_ticket_daemon.store.port import Lease

DONE = Succeeded("text", "primary", "stop", Usage(1, 1), 1.0)
CANCELLED = Failed(ErrorCode.CANCELLED, "gone")


def event(event_id: str, *, priority: int = 5, deadline_at: float = 100) -> Event:
    return Event(
        event_id, (Message(Role.USER, "hi"),), Sampling(), 0, deadline_at, priority=priority
    )


async def claimed(store: MemoryStore, now: float = 0) -> Lease:
    lease = await store.claim(now)
    assert lease is not None
    return lease


async def state(store: MemoryStore, event_id: str) -> EventState:
    record = await store.get(event_id)
    assert record is not None
    return record.state


async def test_events_are_claimed_by_priority_then_in_order() -> None:
    store = MemoryStore()
    await store.submit([event("a"), event("b"), event("urgent", priority=0)])
    assert [(await claimed(store)).event.event_id for _ in range(3)] == ["urgent", "a", "b"]
    assert await store.claim(0) is None


async def test_a_released_event_keeps_its_place_and_waits_for_its_time() -> None:
    store = MemoryStore()
    await store.submit([event("a"), event("b")])
    lease = await claimed(store)
    attempt = Attempt("primary", 0, 1, error=ErrorCode.API_SERVER_ERROR)
    assert await store.release(lease, due_at=5, attempts=[attempt])
    assert await store.next_due() == 0
    assert (await claimed(store, 1)).event.event_id == "b"
    assert await store.claim(4.9) is None
    assert await store.next_due() == 5
    again = await claimed(store, 5)
    assert again.event.event_id == "a"
    assert again.attempts == (attempt,)
    assert again.token != lease.token


async def test_an_event_released_before_others_are_claimed_goes_first() -> None:
    store = MemoryStore()
    await store.submit([event("a"), event("b")])
    await store.release(await claimed(store), due_at=0, attempts=[])
    assert (await claimed(store)).event.event_id == "a"


async def test_an_outcome_is_written_once_and_a_lost_lease_writes_nothing() -> None:
    store = MemoryStore()
    await store.submit([event("a")])
    old = await claimed(store)
    await store.release(old, due_at=0, attempts=[])
    new = await claimed(store)
    assert not await store.complete(old, EventState.FAILED, CANCELLED)
    assert not await store.release(old, due_at=0, attempts=[])
    assert await store.complete(new, EventState.SUCCEEDED, DONE)
    assert not await store.complete(new, EventState.SUCCEEDED, DONE)
    record = await store.get("a")
    assert record is not None
    assert (record.state, record.outcome) == (EventState.SUCCEEDED, DONE)


async def test_cancelling_tells_what_the_event_was_doing() -> None:
    store = MemoryStore()
    await store.submit([event("runs"), event("waits"), event("other")])
    lease = await claimed(store)
    assert await store.cancel("waits", CANCELLED) is EventState.QUEUED
    assert await store.cancel("waits", CANCELLED) is EventState.CANCELLED
    assert await store.cancel("runs", CANCELLED) is EventState.RUNNING
    assert await store.cancel("nobody", CANCELLED) is None
    assert not await store.complete(lease, EventState.SUCCEEDED, DONE)
    assert (await claimed(store)).event.event_id == "other"


async def test_expired_events_are_never_claimed() -> None:
    store = MemoryStore()
    await store.submit([event("late", deadline_at=10), event("fine", deadline_at=20)])
    assert (await claimed(store, 10)).event.event_id == "fine"
    assert await store.expire(10) == ["late"]
    record = await store.get("late")
    assert record is not None
    assert record.state is EventState.EXPIRED
    assert isinstance(record.outcome, Failed)
    assert record.outcome.code is ErrorCode.DEADLINE_EXCEEDED


async def test_a_full_queue_accepts_all_of_a_submission_or_nothing() -> None:
    store = MemoryStore(max_queued=lambda: 2)
    await store.submit([event("a")])
    with pytest.raises(RequestRefused) as refused:
        await store.submit([event("b"), event("c")])
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert (await store.counts())[EventState.QUEUED] == 1


async def test_positions_count_from_one_in_the_order_of_claiming() -> None:
    store = MemoryStore()
    await store.submit([event("a"), event("b"), event("first", priority=1)])
    positions = {}
    for event_id in ("first", "a", "b"):
        record = await store.get(event_id)
        assert record is not None
        positions[event_id] = record.position
    assert positions == {"first": 1, "a": 2, "b": 3}
    await claimed(store)
    record = await store.get("first")
    assert record is not None
    assert record.position is None


async def test_memory_holds_a_bounded_number_of_ended_events() -> None:
    store = MemoryStore(keep_ended=10)
    for number in range(5000):
        await store.submit([event(str(number), deadline_at=1e9)])
        await store.complete(await claimed(store), EventState.SUCCEEDED, DONE)
    assert await store.get("0") is None
    assert await state(store, "4999") is EventState.SUCCEEDED
    assert (await store.counts())[EventState.SUCCEEDED] == 5000
    sizes = [len(value) for value in vars(store).values() if hasattr(value, "__len__")]
    assert max(sizes) < 2000


async def test_the_oldest_waiting_event_is_known() -> None:
    store = MemoryStore()
    assert await store.oldest_queued_at() is None
    await store.submit([event("a")])
    assert await store.oldest_queued_at() == 0
