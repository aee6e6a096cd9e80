from __future__ import annotations

from contextlib import aclosing

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.reasoning import ReasoningText
from ai_ticket_daemon.host.memory_budget import FREE_BYTES, MemoryBudget
from ai_ticket_daemon.pipeline.waiters import Waiter, Waiters
from ai_ticket_daemon.testing.pipeline import succeeded

GONE = Failed(ErrorCode.CANCELLED, "gone")


async def test_a_slow_reader_gets_what_it_missed_in_one_piece(autojump_clock: MockClock) -> None:
    waiters = Waiters()
    waiter = waiters.add("id", Waiter())
    pieces = []

    async def read() -> None:
        async for text in waiter.deltas():
            pieces.append(text)
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        for text in ("a", "b", "c"):
            waiters.add_delta("id", text)
            await trio.sleep(1)
        waiters.end("id", GONE)
    assert pieces == ["a", "bc"]


async def test_thinking_and_answer_are_never_joined_with_each_other() -> None:
    memory = MemoryBudget(lambda: 1_000_000)
    waiters = Waiters(memory)
    waiter = waiters.add("id", Waiter())
    for number in range(1000):
        waiters.add_delta("id", ReasoningText(f"{number},"))
    for text in ("Yes", "."):
        waiters.add_delta("id", text)
    waiters.end("id", GONE)
    thought, answer = [text async for text in waiter.deltas()]
    assert isinstance(thought, ReasoningText)
    assert thought == "".join(f"{number}," for number in range(1000))
    assert answer == "Yes."
    assert not isinstance(answer, ReasoningText)
    waiters.remove("id", waiter)


async def test_the_outcome_can_be_asked_for_again_and_by_several() -> None:
    waiters = Waiters()
    waiter = waiters.add("id", Waiter())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter.outcome)
        await wait_all_tasks_blocked()
        waiters.end("id", GONE)
    assert await waiter.outcome() is GONE


async def test_nobody_watching_costs_nothing_and_breaks_nothing() -> None:
    waiters = Waiters()
    waiters.add_delta("id", "text")
    waiters.end("id", GONE)
    assert waiters.remove("id", Waiter())
    assert waiters.event_ids() == ()


async def test_who_stopped_watching_hears_no_more_and_the_others_do() -> None:
    waiters = Waiters()
    left: list[object] = []
    stayed: list[object] = []
    leaving = waiters.add("id", Waiter(left.append))
    waiters.add("id", Waiter(stayed.append))
    assert not waiters.remove("id", leaving)
    waiters.end("id", GONE)
    assert (left, stayed) == ([], [GONE])
    assert waiters.remove("id", leaving)


async def test_only_some_of_those_who_wait_hold_up_a_stop() -> None:
    waiters = Waiters()
    waiters.add("id", Waiter(delays_stop=False))
    assert not waiters.delay_stop
    waiters.add("id", Waiter())
    assert waiters.delay_stop


async def read(waiter: Waiter) -> str:
    return "".join([text async for text in waiter.deltas()])


async def test_what_nobody_reads_counts_and_its_reader_is_told_when_there_is_no_room() -> None:
    memory = MemoryBudget(lambda: 1_000_000)
    waiters = Waiters(memory)
    slow, others = waiters.add("slow", Waiter()), waiters.add("other", Waiter())
    for _ in range(2_000):
        waiters.add_delta("slow", "x" * 1_000)
        assert memory.used_bytes <= 1_000_000
    waiters.add_delta("other", "a little")
    waiters.end("other", succeeded("a little"))
    assert await read(others) == "a little"
    assert await others.outcome() == succeeded("a little")
    assert await read(slow) == ""
    outcome = await slow.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.MEMORY_EXHAUSTED
    waiters.end("slow", succeeded())
    assert await slow.outcome() is outcome
    waiters.remove("slow", slow)
    waiters.remove("other", others)
    assert memory.used_bytes == 0
    assert memory.take_peak() > 900_000


async def test_a_completion_for_which_there_is_no_room_stays_in_the_store() -> None:
    memory = MemoryBudget(lambda: 1_000_000)
    waiters = Waiters(memory)
    waiter = waiters.add("id", Waiter())
    waiters.end("id", succeeded("x" * 1_000_000))
    outcome = await waiter.outcome()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.MEMORY_EXHAUSTED
    assert memory.used_bytes == 0


async def test_who_reads_at_once_takes_no_memory_however_long_the_completion() -> None:
    memory = MemoryBudget(lambda: 1)
    waiters = Waiters(memory)
    waiter = waiters.add("id", Waiter())
    async with aclosing(waiter.deltas()) as deltas:
        for _ in range(1_000):
            waiters.add_delta("id", "x" * (FREE_BYTES // 8))
            assert len(await anext(deltas)) == FREE_BYTES // 8
    waiters.end("id", GONE)
    assert await waiter.outcome() is GONE


async def test_many_small_pieces_come_as_one_and_in_order() -> None:
    waiters = Waiters()
    waiter = waiters.add("id", Waiter())
    for number in range(2_000):
        waiters.add_delta("id", f"{number},")
    waiters.end("id", GONE)
    assert await read(waiter) == "".join(f"{number}," for number in range(2_000))
