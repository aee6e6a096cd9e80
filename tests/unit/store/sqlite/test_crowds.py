"""Many events at a time take no more memory, and no longer turn of the loop, than a few."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.events.event import text_bytes
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import MAX_EXPIRED_BYTES
from ai_ticket_daemon.store.sqlite.database import Database
from ai_ticket_daemon.store.sqlite.writer import GROUP_WRITES
from tests.support.store.store_support import claimed, event, gone, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

WIDE = "\U0001f600"
"""Makes four bytes in memory of each character beside it."""
LONG = "a" * (MAX_EXPIRED_BYTES // 16 - 100) + WIDE
"""Four of these are enough to expire at a time, and one is more bytes in memory than on disk."""


async def test_events_with_long_texts_expire_a_few_at_a_time_until_none_is_left(
    tmp_path: Path,
) -> None:
    found: list[str] = []
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event(str(n), LONG, deadline_at=1) for n in range(10)], owned=False)
        while expired := await store.expire(2, 500):
            assert sum(text_bytes(record.event) for record in expired[:-1]) < MAX_EXPIRED_BYTES
            found += [record.event.event_id for record in expired]
    assert found == [str(n) for n in range(10)]


async def test_whoever_cancels_a_crowd_is_not_handed_all_its_texts(tmp_path: Path) -> None:
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event("runs", LONG), event("waits", LONG)], owned=False)
        await claimed(store)
        for event_id in ("runs", "waits", "waits"):
            cancelled = await store.cancel(event_id, 1, gone)
            assert cancelled is not None
            _, record = cancelled
            assert (record.state, record.event.messages) == (EventState.CANCELLED, ())


async def test_writes_that_wait_together_are_carried_out_a_turn_of_the_loop_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    transact = Database.transact

    def noted(database: Database, group: Sequence[Any]) -> Exception | None:
        groups.append(len(group))
        return transact(database, group)

    number = 2 * GROUP_WRITES + 50
    async with opened(tmp_path / "events.db") as store:
        monkeypatch.setattr(Database, "transact", noted)
        async with trio.open_nursery() as nursery:
            for n in range(number):
                nursery.start_soon(partial(store.submit, [event(str(n))], owned=False))
        assert sum(groups) >= number
        assert max(groups) <= GROUP_WRITES
