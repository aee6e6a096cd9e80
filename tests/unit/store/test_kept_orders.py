"""Standing orders, in both stores: kept for all daemons, and what they do to deadlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.store.port import Order
from tests.support.store.store_support import BROKEN, claim, claimed, event, opened, state

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.store.port import EventStore


def holding(at: float) -> Order:
    return Order("yes", at, holds=True)


async def deadline(store: EventStore, event_id: str) -> float:
    record = await store.get(event_id)
    assert record is not None
    return record.event.deadline_at


async def test_the_last_order_of_a_name_stands(store: EventStore) -> None:
    assert await store.orders() == {}
    await store.order("pinned", Order("standby", 1.0))
    await store.order("pinned", Order("primary", 2.0))
    await store.order("paused", holding(3.0))
    assert await store.orders() == {"pinned": Order("primary", 2.0), "paused": holding(3.0)}


async def test_time_that_events_are_held_does_not_count_against_them(store: EventStore) -> None:
    await store.submit([event("early", submitted_at=0.0, deadline_at=100.0)], owned=False)
    await store.order("paused", holding(50.0))
    await store.submit([event("within", submitted_at=70.0, deadline_at=170.0)], owned=False)
    assert await store.expire(500.0, 10) == []
    await store.order("paused", Order("", 550.0))
    assert await deadline(store, "early") == 600.0
    assert await deadline(store, "within") == 650.0
    lease = await claimed(store, 599.0)
    assert lease.event.event_id == "early"
    assert lease.event.deadline_at == 600.0
    [record] = await store.expire(650.0, 10)
    assert record.event.event_id == "within"


async def test_a_held_event_that_a_client_waits_for_expires_and_says_why(
    store: EventStore,
) -> None:
    await store.submit([event("waited for", deadline_at=100.0)], owned=True)
    await store.submit([event("left", deadline_at=100.0)], owned=False)
    await store.order("paused", holding(50.0))
    [record] = await store.expire(100.0, 10, held="paused by an operator")
    assert record.event.event_id == "waited for"
    assert isinstance(record.outcome, Failed)
    assert "paused by an operator" in record.outcome.message
    assert "backend" not in record.outcome.message
    assert record.outcome.details == {"held": "paused by an operator"}
    assert await state(store, "left") is EventState.QUEUED


async def test_an_order_that_holds_nothing_lets_the_clock_run(store: EventStore) -> None:
    await store.submit([event("a", deadline_at=100.0)], owned=False)
    await store.order("pinned", Order("standby", 50.0))
    assert [r.event.event_id for r in await store.expire(100.0, 10)] == ["a"]


async def test_the_clock_stands_until_the_last_order_that_holds_is_taken_back(
    store: EventStore,
) -> None:
    await store.submit([event("a", deadline_at=100.0)], owned=False)
    await store.order("paused", holding(10.0))
    await store.order("draining", holding(20.0))
    await store.order("paused", Order("", 30.0))
    assert await deadline(store, "a") == 100.0
    await store.order("draining", Order("", 40.0))
    assert await deadline(store, "a") == 130.0
    await store.order("draining", Order("", 90.0))
    assert await deadline(store, "a") == 130.0


async def test_what_can_be_claimed_again_after_a_hold_is_found(store: EventStore) -> None:
    await store.submit([event("a", deadline_at=10.0)], owned=False)
    await store.order("paused", holding(5.0))
    assert await claim(store, 20.0) is None
    await store.order("paused", Order("", 20.0))
    assert await claim(store, 20.0) is not None


async def test_a_retried_event_gets_the_time_it_was_submitted_with(store: EventStore) -> None:
    whole = event("a", submitted_at=0.0, deadline_at=100.0, timeout_seconds=100.0)
    await store.submit([whole], owned=False)
    await store.order("paused", holding(10.0))
    await store.order("paused", Order("", 60.0))
    await store.complete(await claimed(store, 70.0), EventState.FAILED, BROKEN, 80.0)
    await store.retry("a", 1000.0)
    assert await deadline(store, "a") == 1100.0


async def test_each_living_daemon_says_something_of_itself(store: EventStore) -> None:
    await store.sit("first words")
    await store.sit("me")
    assert await store.members() == {0: "me"}


async def test_daemons_of_one_file_know_of_each_other_as_long_as_they_live(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as first:
        await first.sit("first")
        async with opened(path) as second:
            await second.sit("second")
            assert await first.members() == {0: "first", 1: "second"}
            await second.order("paused", holding(1.0))
            assert await first.orders() == {"paused": holding(1.0)}
        assert await first.members() == {0: "first"}
    async with opened(path) as later:
        assert await later.orders() == {"paused": holding(1.0)}


async def test_a_long_queue_gets_its_time_back_in_pieces_and_none_of_it_expires_meanwhile() -> None:
    store, number = MemoryStore(), 2000
    await store.submit([event(str(n), deadline_at=100.0) for n in range(number)], owned=False)
    await store.order("paused", holding(50.0))
    expired, turns, done = [], 0, False

    async def take_turns() -> None:
        nonlocal turns
        while not done:
            expired.extend(await store.expire(550.0, 10))
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await store.order("paused", Order("", 550.0))
        done = True
    assert turns >= number / 500
    assert expired == []
    assert {await deadline(store, str(n)) for n in (0, number // 2, number - 1)} == {600.0}


async def test_orders_that_come_while_time_is_given_back_wait_for_their_turn() -> None:
    store = MemoryStore()
    await store.submit([event(str(n), deadline_at=100.0) for n in range(1000)], owned=False)
    await store.order("paused", holding(50.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.order, "paused", Order("", 60.0))
        nursery.start_soon(store.order, "drained", Order("", 60.0))
        nursery.start_soon(store.order, "pinned", Order("standby", 60.0))
    assert set(await store.orders()) == {"paused", "drained", "pinned"}
    assert {await deadline(store, str(n)) for n in (0, 999)} == {110.0}


async def test_time_is_given_back_to_all_though_whoever_ordered_it_leaves() -> None:
    store = MemoryStore()
    await store.submit([event(str(n), deadline_at=100.0) for n in range(1000)], owned=False)
    await store.order("paused", holding(50.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.order, "paused", Order("", 60.0))
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert await store.orders() == {"paused": Order("", 60.0)}
    assert {await deadline(store, str(n)) for n in (0, 999)} == {110.0}
