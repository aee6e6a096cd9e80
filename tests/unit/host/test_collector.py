from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.host import collector
from ai_ticket_daemon.host.collector import LITTLE, LONGEST_SECONDS, LOOK_SECONDS, uncollected
from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
from tests.support.lacks import Lack

if TYPE_CHECKING:
    from trio.testing import MockClock


async def collections_in(seconds: float, objects: int) -> int:
    """Return how often all is collected in that time with so many old objects."""
    collected: list[float] = []
    async with trio.open_nursery() as nursery:
        run = partial(
            collector.run,
            exhaustion=Exhaustion(),
            objects=lambda: objects,
            collect=lambda: collected.append(trio.current_time()),
        )
        await nursery.start(run)
        await trio.sleep(seconds + LOOK_SECONDS / 2)
        nursery.cancel_scope.cancel()
    return len(collected)


def test_a_start_is_not_looked_through_and_what_comes_after_it_is() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        made: list[list[int]] = [[] for _ in range(10)]

    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    assert made
    with pytest.raises(OSError, match="the start failed"), uncollected():
        raise OSError("the start failed")
    assert gc.isenabled()


async def test_little_is_collected_often_and_much_seldom(autojump_clock: MockClock) -> None:
    assert await collections_in(5 * LOOK_SECONDS, LITTLE) == 5
    assert await collections_in(LONGEST_SECONDS - LOOK_SECONDS, LITTLE + 1) == 0
    assert await collections_in(3 * LONGEST_SECONDS, LITTLE + 1) == 3


async def test_while_clients_come_the_interpreter_collects_what_is_young_only(
    autojump_clock: MockClock,
) -> None:
    thresholds = gc.get_threshold()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(collector.run, exhaustion=Exhaustion()))
        before = [generation["collections"] for generation in gc.get_stats()]
        kept: list[list[int]] = [[] for _ in range(200_000)]
        now = [generation["collections"] for generation in gc.get_stats()]
        assert now[0] > before[0]
        assert now[1] > before[1]
        assert now[2] == before[2]
        assert kept
        nursery.cancel_scope.cancel()
    assert gc.get_threshold() == thresholds


async def test_a_circle_is_collected(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(collector.run, exhaustion=Exhaustion(), objects=lambda: LITTLE))
        before = gc.get_stats()[2]["collections"]
        await trio.sleep(1.5 * LOOK_SECONDS)
        assert gc.get_stats()[2]["collections"] == before + 1
        nursery.cancel_scope.cancel()


async def test_a_lack_of_memory_is_told_and_it_is_tried_again(autojump_clock: MockClock) -> None:
    lack, collected = Lack(Resource.MEMORY), trio.Event()
    lack.raised()
    run = partial(
        collector.run,
        exhaustion=lack.exhaustion(),
        objects=lambda: 0,
        collect=lack.before(collected.set),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        with trio.fail_after(10 * LOOK_SECONDS):
            await collected.wait()
        nursery.cancel_scope.cancel()
    assert lack.met == ["collector"]
