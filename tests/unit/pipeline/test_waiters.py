from __future__ import annotations

from contextlib import aclosing

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.memory import FREE_BYTES, MemoryBudget
from ai_ticket_daemon.pipeline.waiters import Board, Watch
from ai_ticket_daemon.testing.pipeline import succeeded

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


async def read(watch: Watch) -> str:
    return "".join([text async for text in watch.deltas()])


async def test_what_nobody_reads_counts_and_its_reader_is_told_when_there_is_no_room() -> None:
    memory = MemoryBudget(lambda: 1_000_000)
    board = Board(memory)
    slow, others = board.watch("slow", Watch()), board.watch("other", Watch())
    for _ in range(2_000):
        board.add_delta("slow", "x" * 1_000)
        assert memory.used_bytes <= 1_000_000
    board.add_delta("other", "a little")
    board.end("other", succeeded("a little"))
    assert await read(others) == "a little"
    assert await others.outcome() == succeeded("a little")
    assert await read(slow) == ""
    outcome = await slow.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.MEMORY_EXHAUSTED
    board.end("slow", succeeded())
    assert await slow.outcome() is outcome
    board.unwatch("slow", slow)
    board.unwatch("other", others)
    assert memory.used_bytes == 0
    assert memory.take_peak() > 900_000


async def test_a_completion_for_which_there_is_no_room_stays_in_the_store() -> None:
    memory = MemoryBudget(lambda: 1_000_000)
    board = Board(memory)
    watch = board.watch("id", Watch())
    board.end("id", succeeded("x" * 1_000_000))
    outcome = await watch.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.MEMORY_EXHAUSTED
    assert memory.used_bytes == 0


async def test_who_reads_at_once_takes_no_memory_however_long_the_completion() -> None:
    memory = MemoryBudget(lambda: 1)
    board = Board(memory)
    watch = board.watch("id", Watch())
    async with aclosing(watch.deltas()) as deltas:
        for _ in range(1_000):
            board.add_delta("id", "x" * (FREE_BYTES // 8))
            assert len(await anext(deltas)) == FREE_BYTES // 8
    board.end("id", GONE)
    assert await watch.outcome() is GONE


async def test_many_small_pieces_come_as_one_and_in_order() -> None:
    board = Board()
    watch = board.watch("id", Watch())
    for number in range(2_000):
        board.add_delta("id", f"{number},")
    board.end("id", GONE)
    assert await read(watch) == "".join(f"{number}," for number in range(2_000))
