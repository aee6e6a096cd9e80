"""The lock of whoever writes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ai_ticket_daemon.server.write_lock import WriteLock


async def test_where_nobody_else_writes_no_other_task_runs_meanwhile() -> None:
    lock = WriteLock()
    others: list[str] = []

    async def other() -> None:
        others.append("ran")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(3):
            async with lock:
                pass
        assert not others


async def test_tasks_write_one_after_the_other_in_the_order_they_came() -> None:
    lock = WriteLock()
    written: list[str] = []

    async def write(name: str) -> None:
        async with lock:
            written.append(f"{name} begins")
            await trio.testing.wait_all_tasks_blocked()
            written.append(f"{name} ends")

    async with trio.open_nursery() as nursery, lock:
        for name in ("a", "b"):
            nursery.start_soon(write, name)
            await trio.testing.wait_all_tasks_blocked()
    assert written == ["a begins", "a ends", "b begins", "b ends"]


async def test_who_is_cancelled_does_not_get_it_and_a_failure_gives_it_back() -> None:
    lock = WriteLock()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with lock:
            pytest.fail("a task that was cancelled has begun to write")
    assert scope.cancelled_caught
    with pytest.raises(ZeroDivisionError):
        async with lock:
            raise ZeroDivisionError
    with trio.fail_after(60):
        async with lock:
            pass
