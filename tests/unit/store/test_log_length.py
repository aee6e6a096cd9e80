"""SQLite's log gives the disk back what a burst made it take."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import trio

from ai_ticket_daemon.store.sqlite.schema import LOG_BYTES
from tests.support.store.store_support import event, opened

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 60
TEXT = "x" * 1_000_000


async def test_a_log_that_a_burst_made_long_is_cut_when_nobody_reads_from_it_any_more(
    tmp_path: Path,
) -> None:
    path, log = tmp_path / "events.db", tmp_path / "events.db-wal"
    async with opened(path) as store:
        await store.submit([event("first")], owned=False)
        with closing(apsw.Connection(str(path))) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM event").fetchall()
            for number in range(2 * LOG_BYTES // len(TEXT)):
                await store.submit([event(str(number), TEXT)], owned=False)
            assert log.stat().st_size > LOG_BYTES
            reader.execute("ROLLBACK")
        with trio.fail_after(PATIENCE_SECONDS):
            while log.stat().st_size > LOG_BYTES:  # noqa: ASYNC110 - a file tells nobody
                await trio.sleep(0.05)
        await store.submit([event("last")], owned=False)
        assert (await store.counts()).accepted == 2 + 2 * LOG_BYTES // len(TEXT)
