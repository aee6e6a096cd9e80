"""What happened to the servers is written down, also through a store that fails for a while."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from ai_ticket_daemon.control.history import PoolHistory
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.store.port import KEPT_CHANGES, Change

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trio.testing import MockClock


class BrittleStore(MemoryStore):
    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    async def note_changes(self, changes: Sequence[Change]) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.writes += 1
        await super().note_changes(changes)

    async def changes(self, begin: float, end: float) -> list[Change]:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        return await super().changes(begin, end)


@asynccontextmanager
async def running(store: MemoryStore) -> AsyncIterator[PoolHistory]:
    history = PoolHistory(PoolObserver(), store, log=structlog.get_logger(), now=trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: history.run(task_status=task_status))
        yield history
        nursery.cancel_scope.cancel()


async def test_what_is_noted_is_written_at_once_and_a_burst_in_few_writes(
    autojump_clock: MockClock,
) -> None:
    store = BrittleStore()
    async with running(store) as history:
        history.note("first")
        await trio.testing.wait_all_tasks_blocked()
        assert await store.changes(0, 9) == [Change(0, "first")]
        for number in range(100):
            history.note(str(number))
        await trio.sleep(1)
        assert len(await store.changes(0, 9)) == 101
        assert store.writes == 2


async def test_a_store_that_fails_gets_it_later_and_nothing_twice(
    autojump_clock: MockClock,
) -> None:
    store = BrittleStore()
    async with running(store) as history:
        store.broken = True
        history.note("unwritten")
        await trio.sleep(5)
        history.note("later")
        assert [c.text for c in await history.between(0, 9)] == ["unwritten", "later"]
        store.broken = False
        await trio.sleep(1)
        assert [c.text for c in await store.changes(0, 9)] == ["unwritten", "later"]
        assert [c.text for c in await history.between(0, 9)] == ["unwritten", "later"]
        assert [c.text for c in await history.between(4, 9)] == ["later"]


async def test_a_stop_writes_the_rest(autojump_clock: MockClock) -> None:
    store = BrittleStore()
    async with running(store) as history:
        history.note("first")
        await trio.sleep(0.1)
        history.note("the daemon was told to stop")
    assert [c.text for c in await store.changes(0, 9)] == ["first", "the daemon was told to stop"]


async def test_what_waits_for_the_store_is_bounded(autojump_clock: MockClock) -> None:
    store = BrittleStore()
    store.broken = True
    async with running(store) as history:
        for number in range(KEPT_CHANGES + 5):
            history.note(str(number))
        assert len(await history.between(0, 9)) == KEPT_CHANGES
        store.broken = False
        await trio.sleep(1)
        assert (await store.changes(0, 9))[0].text == "5"


async def test_changes_that_no_store_would_take_are_given_up_and_said(
    autojump_clock: MockClock,
) -> None:
    class Picky(BrittleStore):
        async def note_changes(self, changes: Sequence[Change]) -> None:
            if any("bad" in change.text for change in changes):
                raise ValueError("no such character")
            await super().note_changes(changes)

    store = Picky()
    with structlog.testing.capture_logs() as lines:
        async with running(store) as history:
            history.note("bad")
            await trio.sleep(60)
            history.note("good")
            await trio.sleep(60)
            assert [change.text for change in await store.changes(0, 999)] == ["good"]
    assert [line["event"] for line in lines] == ["history_not_kept"]
