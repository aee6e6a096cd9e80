from __future__ import annotations

import pytest
import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.host.memory_budget import MemoryBudget
from ai_ticket_daemon.server.request_body import RequestBody


def body(budget: MemoryBudget, announced_bytes: int | None = None) -> RequestBody:
    return RequestBody(1000, "http.max_body_bytes", announced_bytes, budget.share())


async def test_a_body_holds_memory_from_its_first_byte_until_it_is_let_go_of() -> None:
    budget = MemoryBudget(lambda: 10_000)
    request = body(budget, 6)
    request.add(b"abc", is_last=False)
    assert 3 <= budget.used_bytes < 200
    request.add(b"def", is_last=False)
    assert await request.read(1) == b"abcdef"
    assert request.so_far == b"abcdef"
    assert budget.used_bytes >= 6
    request.release()
    assert budget.used_bytes == 0
    assert request.so_far == b""


async def test_a_body_for_which_there_is_no_room_is_refused_at_once_and_takes_nothing() -> None:
    budget = MemoryBudget(lambda: 1500)
    first, second = body(budget), body(budget)
    first.add(b"x" * 900, is_last=True)
    with trio.fail_after(30):  # half of what the last line would wait
        second.add(b"y" * 600, is_last=False)
        with pytest.raises(RequestRefused) as caught:
            await second.read(60)
    assert caught.value.code is ErrorCode.MEMORY_EXHAUSTED
    assert caught.value.retry_after_seconds
    used = budget.used_bytes
    second.add(b"y" * 100, is_last=True)
    assert second.so_far == b""
    assert budget.used_bytes == used
    assert await first.read(1) == b"x" * 900


async def test_a_body_sent_byte_by_byte_counts_for_what_it_takes() -> None:
    budget = MemoryBudget(lambda: 10_000)
    request = body(budget)
    for _ in range(500):
        request.add(b"x", is_last=False)
    with pytest.raises(RequestRefused) as caught:
        await request.read(1)
    assert caught.value.code is ErrorCode.MEMORY_EXHAUSTED
    assert budget.used_bytes == 0


async def test_what_comes_after_a_body_was_let_go_of_is_not_kept() -> None:
    budget = MemoryBudget(lambda: 10_000)
    request = body(budget)
    request.add(b"abc", is_last=False)
    request.release()
    request.add(b"def", is_last=True)
    assert request.so_far == b""
    assert budget.used_bytes == 0


def test_an_event_counts_for_what_its_texts_take_in_memory() -> None:
    budget = MemoryBudget(lambda: 100_000)
    share = budget.share()
    event = Event("id", (Message(Role.USER, "😀" * 20_000),), Sampling(), 0.0, 1.0)
    share.take_event(event)
    assert budget.used_bytes > 80_000
    with pytest.raises(RequestRefused) as caught:
        share.take_event(event)
    assert caught.value.code is ErrorCode.MEMORY_EXHAUSTED
    share.release()
    assert budget.used_bytes == 0
