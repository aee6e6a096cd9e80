"""Events that begin alike may be taken ahead of others, in both stores, as far as is allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.outcome import Attempt
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import EventFilter, Lease, Preference
from tests.support.store.store_support import BROKEN, event, gone, opened

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.store.port import EventStore

READ_A = Preference((b"a",), most=3, seconds=10.0)


async def submit(store: EventStore, *names: str, priority: int = 5, seconds: float = 100) -> None:
    """Submit events whose prompts begin with the first letter of their names; "-": short ones."""
    await store.submit(
        [event(name, priority=priority, deadline_at=seconds) for name in names],
        owned=False,
        beginnings=[None if name[0] == "-" else name[0].encode() for name in names],
    )


async def take(store: EventStore, prefer: Preference | None = READ_A, now: float = 0.0) -> Lease:
    lease = await store.claim(now, backend="primary", until=now + 30, prefer=prefer)
    assert lease is not None
    return lease


async def names(store: EventStore, number: int, prefer: Preference | None = READ_A) -> str:
    return " ".join([(await take(store, prefer)).event.event_id for _ in range(number)])


async def test_without_a_preference_the_order_is_that_of_acceptance(store: EventStore) -> None:
    await submit(store, "b1", "a1", "b2", "a2")
    assert await names(store, 4, None) == "b1 a1 b2 a2"


async def test_the_first_that_begins_as_the_last_prompt_did_is_taken_ahead(
    store: EventStore,
) -> None:
    await submit(store, "b1", "-1", "a1", "a2")
    ahead = await take(store)
    assert (ahead.event.event_id, ahead.beginning, ahead.ahead_of) == ("a1", b"a", 2)
    first = await take(store, replace(READ_A, beginnings=(b"x",)))
    assert (first.event.event_id, first.ahead_of, first.overtaken) == ("b1", 0, 1)
    assert (await take(store)).ahead_of == 1


async def test_no_event_is_taken_ahead_of_more_than_the_most(store: EventStore) -> None:
    await submit(store, "b1", "b2", "b3", "b4", "a1", "a2")
    assert await names(store, 3) == "b1 a1 a2"


async def test_no_more_than_the_most_are_taken_ahead_of_an_event(store: EventStore) -> None:
    await submit(store, "b1", "a1", "a2", "a3", "a4")
    assert await names(store, 5) == "a1 a2 a3 b1 a4"


async def test_an_event_that_was_passed_over_long_ago_is_next(store: EventStore) -> None:
    await submit(store, "b1", "a1", "a2", "a3")
    assert (await take(store, now=20)).event.event_id == "a1"
    assert (await take(store, now=29)).event.event_id == "a2"
    assert (await take(store, now=30)).event.event_id == "b1"


async def test_an_event_whose_time_is_nearly_over_is_not_passed_over(store: EventStore) -> None:
    await submit(store, "b1", seconds=30)
    await submit(store, "a1", "a2")
    assert (await take(store, now=19)).event.event_id == "a1"
    assert (await take(store, now=20)).event.event_id == "b1"


async def test_what_is_more_urgent_is_never_passed_over(store: EventStore) -> None:
    await submit(store, "b1", "b2")
    await submit(store, "a1")
    await submit(store, "b3", priority=0)
    await submit(store, "a2", priority=9)
    assert await names(store, 5) == "b3 a1 b1 b2 a2"


async def test_an_event_that_goes_back_takes_its_old_place_and_keeps_its_count(
    store: EventStore,
) -> None:
    await submit(store, "b1", "a1", "a2", "a3", "a4", "a5")
    assert await names(store, 2) == "a1 a2"
    b1 = await take(store, None)
    assert (b1.event.event_id, b1.overtaken) == ("b1", 2)
    assert await store.release(b1, due_at=5.0, attempts=[Attempt("primary", 0, 1)])
    assert (await take(store, now=4)).ahead_of == 0  # not due: nothing to be taken ahead of
    assert (await take(store, now=5)).event.event_id == "a4"
    last = await take(store, now=5)
    assert (last.event.event_id, last.overtaken) == ("b1", 3)


async def test_an_event_that_was_tried_is_not_taken_ahead_again(store: EventStore) -> None:
    await submit(store, "b1", "a1", "a2")
    a1 = await take(store)
    assert (a1.event.event_id, a1.ahead_of) == ("a1", 1)
    assert await store.release(a1, due_at=0.0, attempts=[Attempt("primary", 0, 1)])
    assert await names(store, 3) == "a2 b1 a1"


async def test_an_event_that_is_cancelled_is_passed_over_no_more(store: EventStore) -> None:
    await submit(store, "b1", "b2", "a1", "a2", "a3", "a4")
    assert await names(store, 3) == "a1 a2 a3"
    await store.cancel("b1", 0.0, gone)
    lease = await take(store)
    assert (lease.event.event_id, lease.overtaken) == ("b2", 3)


async def test_how_many_were_taken_ahead_is_told_until_an_operator_retries_it(
    store: EventStore,
) -> None:
    async def overtaken() -> int:
        page = await store.page(EventFilter(event_id="b1"), below=None, limit=1)
        return page.events[0].overtaken

    await submit(store, "b1", "a1", "a2")
    assert await overtaken() == 0
    assert await names(store, 2) == "a1 a2"
    assert await overtaken() == 2
    await store.complete(await take(store), EventState.FAILED, BROKEN, 1.0)
    assert await overtaken() == 2
    await store.retry("b1", 1.0)
    assert await overtaken() == 0


async def test_daemons_of_one_store_count_together(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as one, opened(path) as other:
        await submit(one, "b1", "a1", "a2", "a3", "a4")
        await other.changed_elsewhere()
        assert await names(one, 2) == "a1 a2"
        assert await names(other, 3) == "a3 b1 a4"


async def test_the_places_survive_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as store:
        await submit(store, "b1", "a1", "a2", "a3", "a4")
        ran = await take(store)
        assert ran.event.event_id == "a1"
    async with opened(path) as store:
        # What ran is queued again, and waits its turn; b1 may be passed over twice more.
        assert await names(store, 3) == "a2 a3 b1"
