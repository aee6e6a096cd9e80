"""Clients that leave at any moment, before a store that takes its time for everything."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.pipeline_house import PRIMARY, STANDBY, BrittleStore, event, failure, running

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.support.pipeline_house import House

CLIENTS = 25


class SlowStore(BrittleStore):
    """A store that takes its time before it does something, and before it says so."""

    chance: Random

    async def _slowly(self, call: Any, *args: Any, **named: Any) -> Any:
        await trio.sleep(self.chance.choice([0, 0.05, 0.5]))
        result = await call(*args, **named)
        await trio.sleep(self.chance.choice([0, 0.05, 0.5]))
        return result

    async def claim(self, *args: Any, **named: Any) -> Any:
        return await self._slowly(super().claim, *args, **named)

    async def cancel(self, *args: Any) -> Any:
        return await self._slowly(super().cancel, *args)

    async def release(self, *args: Any, **named: Any) -> Any:
        return await self._slowly(super().release, *args, **named)

    async def complete(self, *args: Any) -> Any:
        return await self._slowly(super().complete, *args)


class Prompts(list[str]):
    """The prompts a server is sent, with their times."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[str, float]] = []

    def append(self, prompt: str) -> None:
        self.started.append((prompt, trio.current_time()))
        super().append(prompt)


async def client(house: House, chance: Random, name: str, left_at: dict[str, float]) -> None:
    await trio.sleep(5 * chance.random())
    submission = await house.pipeline.submit(event(name, seconds=60), fail_fast=False)
    match chance.choice(["stays", "leaves", "leaves", "is cancelled"]):
        case "stays":
            await submission.outcome()
            submission.release()
            return
        case "leaves":
            await trio.sleep(2 * chance.random())
            submission.abandon()
        case _:
            await trio.sleep(2 * chance.random())
            await house.pipeline.cancel(submission.event_id)
            submission.release()
    left_at[name] = trio.current_time()


@pytest.mark.parametrize("seed", range(8))
async def test_no_event_is_started_after_its_client_left_and_every_event_ends(
    seed: int, autojump_clock: MockClock
) -> None:
    chance = Random(seed)
    store = SlowStore(max_queued=lambda: 1000)
    store.chance = chance
    left_at: dict[str, float] = {}
    prompts = Prompts()
    async with running(servers=(PRIMARY, STANDBY), store=store) as house:
        for server in house.clients.values():
            server.seconds = 0.3
            server.prompts = prompts
            server.answers = [chance.choice([None, failure()]) for _ in range(CLIENTS)]
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(client, house, chance, str(number), left_at)
        await trio.sleep(60)
        counts = await store.counts()
        assert (counts.accepted, counts.ended) == (CLIENTS, CLIENTS)
        assert house.pipeline.in_flight == 0
    assert left_at
    assert not [name for name, at in prompts.started if at > left_at.get(name, at)]
