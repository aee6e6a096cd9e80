from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.runtime.board import Board, Watch

GONE = Failed(ErrorCode.CANCELLED, "gone")


async def test_a_slow_reader_gets_what_it_missed_in_one_piece(autojump_clock: MockClock) -> None:
    board = Board()
    watch = board.watch("id", Watch())
    pieces = []

    async def read() -> None:
        async for text in watch.deltas():
            pieces.append(text)
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        for text in ("a", "b", "c"):
            board.add_delta("id", text)
            await trio.sleep(1)
        board.end("id", GONE)
    assert pieces == ["a", "bc"]


async def test_the_outcome_can_be_asked_for_again_and_by_several() -> None:
    board = Board()
    watch = board.watch("id", Watch())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.outcome)
        await wait_all_tasks_blocked()
        board.end("id", GONE)
    assert await watch.outcome() is GONE


async def test_nobody_watching_costs_nothing_and_breaks_nothing() -> None:
    board = Board()
    board.add_delta("id", "text")
    board.end("id", GONE)
    assert board.unwatch("id", Watch())
    assert board.watched() == ()


async def test_who_stopped_watching_hears_no_more_and_the_others_do() -> None:
    board = Board()
    left: list[object] = []
    stayed: list[object] = []
    leaving = board.watch("id", Watch(left.append))
    board.watch("id", Watch(stayed.append))
    assert not board.unwatch("id", leaving)
    board.end("id", GONE)
    assert (left, stayed) == ([], [GONE])
    assert board.unwatch("id", leaving)


async def test_only_some_of_those_who_wait_hold_up_a_stop() -> None:
    board = Board()
    board.watch("id", Watch(holds_up=False))
    assert not board.holds_up
    board.watch("id", Watch())
    assert board.holds_up
