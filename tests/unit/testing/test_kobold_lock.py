from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio
import trio.testing

from ai_ticket_daemon.testing.kobold import KoboldSettings
from ai_ticket_daemon.testing.kobold.lock import GenerationLock

STRICT = KoboldSettings(overtake=False, multiuser=5)
GAPS = replace(STRICT, overtake=True, overtake_chance=1.0, overtake_gap_seconds=1.0)


def lock_with(settings: KoboldSettings) -> GenerationLock:
    return GenerationLock(settings, random.Random(settings.seed))


async def take(lock: GenerationLock, name: str, order: list[str]) -> None:
    await lock.wait()
    order.append(name)


@pytest.mark.parametrize(("multiuser", "places"), [(0, 0), (1, 6), (2, 1), (5, 4), (30, 29)])
async def test_the_multiuser_option_sets_how_many_may_wait(multiuser: int, places: int) -> None:
    lock = lock_with(replace(STRICT, multiuser=multiuser))
    assert lock.try_acquire()
    async with trio.open_nursery() as nursery:
        for number in range(places):
            assert not lock.full
            nursery.start_soon(take, lock, str(number), [])
            await trio.testing.wait_all_tasks_blocked()
        assert lock.full
        assert lock.waiting == places
        assert not lock.try_acquire()
        nursery.cancel_scope.cancel()


async def test_without_overtaking_the_lock_goes_from_hand_to_hand_in_order_of_arrival() -> None:
    lock, order = lock_with(STRICT), list[str]()
    lock.try_acquire()
    async with trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(take, lock, name, order)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            lock.release()
            assert not lock.try_acquire()
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["first", "second", "third"]
    lock.release()
    assert not lock.held


async def test_a_newcomer_slips_in_through_the_gap_and_the_first_one_keeps_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lock, order = lock_with(GAPS), list[str]()
    lock.try_acquire()
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(take, lock, name, order)
            await trio.testing.wait_all_tasks_blocked()
        lock.release()
        assert lock.try_acquire()
        order.append("newcomer")
        await trio.sleep(2)
        assert lock.overtaken_total == 1
        assert lock.waiting == 2
        lock.release()
        await trio.sleep(2)
        lock.release()
    assert order == ["newcomer", "first", "second"]


async def test_an_overtaker_that_is_done_within_the_gap_hands_the_lock_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lock, order = lock_with(GAPS), list[str]()
    lock.try_acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, lock, "first", order)
        await trio.testing.wait_all_tasks_blocked()
        lock.release()
        await trio.sleep(0.5)
        assert lock.try_acquire()
        lock.release()
    assert order == ["first"]
    assert lock.held
    assert lock.waiting == 0


async def test_who_gives_up_waiting_leaves_the_queue() -> None:
    lock = lock_with(STRICT)
    lock.try_acquire()
    with trio.move_on_after(0):
        await lock.wait()
    assert lock.waiting == 0
    lock.release()
    assert lock.try_acquire()


async def test_a_lock_handed_to_someone_who_is_cancelled_is_not_lost() -> None:
    lock = lock_with(STRICT)
    lock.try_acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, lock, "gone", [])
        await trio.testing.wait_all_tasks_blocked()
        lock.release()
        nursery.cancel_scope.cancel()
    assert lock.waiting == 0


async def test_overtaking_is_the_same_in_each_run_with_the_same_seed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def gaps(seed: int) -> list[bool]:
        lock, left_open = lock_with(replace(GAPS, overtake_chance=0.5, seed=seed)), []
        lock.try_acquire()
        for _ in range(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take, lock, "", [])
                await trio.testing.wait_all_tasks_blocked()
                lock.release()
                left_open.append(not lock.held)
        return left_open

    assert await gaps(1) == await gaps(1) != await gaps(2)
    assert set(await gaps(1)) == {True, False}
