from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLock
from ai_ticket_daemon.store.sqlite.writer import Writer
from tests.support.store.store_support import Faults, event, opened

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 60


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "apsw" in thread.name}


async def test_a_closed_store_answers_nothing_and_leaves_no_thread_behind(tmp_path: Path) -> None:
    """A thread that nobody ends would keep the process from ending."""
    others = threads()  # of stores that other tests have left to themselves
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event("a")], owned=False)
        assert (await store.counts()).accepted == 1
        assert threads() - others
    for thread in threads() - others:  # told to end; it may be at its last step
        await trio.to_thread.run_sync(thread.join, PATIENCE_SECONDS)
    assert threads() <= others
    for question in (store.counts(), store.get("a"), store.next_due()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await question
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.submit([event("b")], owned=False)
    assert threads() <= others


async def test_what_comes_after_the_last_write_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    """A worker that is cut off may write a moment after the store has ended beside it."""
    path = tmp_path / "events.db"
    writer = Writer(path, InstanceLock.take(path), Faults(), on_open=lambda: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        nursery.cancel_scope.cancel()
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreUnavailable, match="closed"):
        await writer.write(lambda _: None, durable=True)
