"""Copying the store's file while it is in use, and listing many events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.store.port import PAGE_LOOKS, EventFilter
from tests.support.store.store_support import claimed, event, opened, state

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_backup_holds_everything_and_opens_as_a_store(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event("a"), event("b")], owned=False)
        await claimed(store)
        await store.backup(copy)
        await store.submit([event("later")], owned=False)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert apsw.Connection(str(copy)).pragma("integrity_check") == "ok"
    async with opened(copy) as restored:
        assert await state(restored, "a") is EventState.QUEUED
        assert await state(restored, "b") is EventState.QUEUED
        assert await restored.get("later") is None
        assert (await restored.counts()).difference == 0


async def test_a_backup_never_replaces_a_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    async with opened(tmp_path / "events.db") as store:
        with pytest.raises(StoreUnavailable):
            await store.backup(other)
    assert other.read_text() == "precious"


async def test_a_backup_to_where_nothing_can_be_written_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path / "events.db") as store:
        with pytest.raises(StoreUnavailable, match="No such file"):
            await store.backup(tmp_path / "missing" / "copy.db")


async def test_a_store_in_memory_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="in memory"):
        await MemoryStore().backup(tmp_path / "copy.db")


async def test_a_rare_event_is_found_over_pages_that_cost_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event("rare", owner="rare")], owned=False)
        await store.submit([event(f"e{n}") for n in range(PAGE_LOOKS + 10)], owned=False)
        first = await store.page(EventFilter(owner="rare"), below=None, limit=10)
        second = await store.page(EventFilter(owner="rare"), below=first.below, limit=10)
        by_id = await store.page(EventFilter(event_id="rare"), below=None, limit=10)
    assert first.events == ()
    assert [e.event_id for e in second.events] == ["rare"]
    assert second.below is None
    assert [e.event_id for e in by_id.events] == ["rare"]
