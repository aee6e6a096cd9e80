"""That the clock of the host was set is said once, and the time is written down."""

from __future__ import annotations

import io
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon import timekeeper
from ai_ticket_daemon.clock import KEPT_UNDER
from ai_ticket_daemon.config.log import LogFormat
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.testing.clock import HostClocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


class BrittleStore(MemoryStore):
    broken = False
    writes = 0

    async def remember(self, key: str, value: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.writes += 1
        await super().remember(key, value)


class House:
    def __init__(self) -> None:
        self.host = HostClocks()
        self.clock = self.host.clock()
        self.store = BrittleStore()
        self.notes: list[str] = []
        self._stream = io.StringIO()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        log = Logs(log_format=LogFormat.JSON, stream=self._stream).logger()
        run = partial(
            timekeeper.run,
            clock=self.clock,
            store=self.store,
            log=log,
            note=self.notes.append,
            exhaustion=Exhaustion(),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: run(task_status=task_status))
            yield
            nursery.cancel_scope.cancel()

    async def seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.host.pass_by(1)
            await trio.sleep(1)


async def test_a_step_is_told_once_with_its_size(autojump_clock: MockClock) -> None:
    house = House()
    async with house.keeping():
        await house.seconds(3)
        assert house.told == []
        house.host.calendar -= 7200
        await house.seconds(10)
    [line] = house.told
    assert (line["event"], line["level"]) == ("clock_set", "warning")
    assert (line["step_seconds"], line["ahead_seconds"]) == (-7200.0, -7200.0)
    assert house.notes == [
        "the clock of the host was set back by 7200.0 s; that moves no deadline nearer"
    ]


async def test_a_step_while_no_daemon_ran_is_told_at_the_start(autojump_clock: MockClock) -> None:
    house = House()
    kept = house.clock.go_on(None)
    house.host.calendar += 60
    house.clock = house.host.clock()
    house.clock.go_on(kept)
    async with house.keeping():
        pass
    assert [line["step_seconds"] for line in house.told] == [60.0]


async def test_the_time_is_written_down_at_once_then_each_minute_and_after_a_step(
    autojump_clock: MockClock,
) -> None:
    house = House()
    async with house.keeping():
        await house.seconds(50)
        assert house.store.writes == 1
        await house.seconds(20)
        assert house.store.writes == 2
        house.host.calendar += 5
        await house.seconds(3)
        assert house.store.writes == 3
        kept = await house.store.recall(KEPT_UNDER)
    assert kept is not None
    after = house.host.clock()
    after.go_on(kept)
    assert (after.now(), after.ahead) == (house.clock.now(), 5.0)


async def test_a_store_that_cannot_be_written_is_tried_again(autojump_clock: MockClock) -> None:
    house = House()
    house.store.broken = True
    async with house.keeping():
        await house.seconds(5)
        house.store.broken = False
        await house.seconds(2)
        assert house.store.writes == 1
