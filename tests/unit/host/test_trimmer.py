from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.host import trimmer
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.host.memory_budget import MemoryBudget
from ai_ticket_daemon.host.trimmer import LOOK_SECONDS, WORTH_BYTES, WORTH_OBJECTS

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize(
    ("taken", "kept", "expected"),
    [(WORTH_BYTES, 0, 1), (WORTH_BYTES - 1, 0, 0), (WORTH_BYTES, WORTH_BYTES // 2, 0), (0, 0, 0)],
)
async def test_memory_is_given_back_once_when_large_requests_are_over(
    autojump_clock: MockClock, taken: int, kept: int, expected: int
) -> None:
    memory, given = MemoryBudget(lambda: 10 * WORTH_BYTES), []
    share = memory.share()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                trimmer.run,
                memory=memory,
                exhaustion=Exhaustion(),
                give_back=lambda: given.append(1),
            )
        )
        assert share.take(taken)
        share.release()
        assert share.take(kept)
        await trio.sleep(3.5 * LOOK_SECONDS)
        while len(given) < expected:
            await trio.lowlevel.checkpoint()
        assert len(given) == expected
        share.release()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("gone", "expected"), [(WORTH_OBJECTS, 1), (WORTH_OBJECTS - 1, 0)])
async def test_memory_is_given_back_once_when_many_clients_have_gone(
    autojump_clock: MockClock, gone: int, expected: int
) -> None:
    given: list[int] = []
    left = [400_000, 400_000 + gone, 400_000]
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                trimmer.run,
                memory=MemoryBudget(lambda: 1),
                exhaustion=Exhaustion(),
                objects=lambda: left.pop(0) if len(left) > 1 else left[0],
                give_back=lambda: given.append(1),
            )
        )
        await trio.sleep(5.5 * LOOK_SECONDS)
        while len(given) < expected:
            await trio.lowlevel.checkpoint()
        assert len(given) == expected
        nursery.cancel_scope.cancel()
