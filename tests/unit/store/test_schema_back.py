"""What a change of the schema does to a file, and to the programs that knew the one before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import pytest

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.sqlite.audit import audit_file
from ai_ticket_daemon.store.sqlite.schema import MIGRATIONS, Step, migrate, refuse_foreign, version
from tests.support.store.store_support import DONE, claimed, event, opened, state

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = len(MIGRATIONS)
ADDED = """
ALTER TABLE event ADD COLUMN later TEXT;
ALTER TABLE content ADD COLUMN later TEXT;
ALTER TABLE result ADD COLUMN later TEXT;
ALTER TABLE tally ADD COLUMN later TEXT;
ALTER TABLE note ADD COLUMN later TEXT;
CREATE TABLE later (seq INTEGER PRIMARY KEY);
"""


def upgrade(path: Path, step: Step) -> None:
    """Do to the file what a later version of this program would do."""
    with closing(apsw.Connection(str(path))) as connection:
        migrate(connection, [*MIGRATIONS, step])
        assert version(connection) == KNOWN + 1


async def test_this_version_goes_on_with_a_file_to_which_a_later_one_only_added(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as store:
        await store.submit([event("before")], owned=False)
    upgrade(path, Step(ADDED, usable_since=KNOWN))

    async with opened(path) as store:
        await store.submit([event("after")], owned=False)
        await store.remember("key", "value")
        for _ in range(2):
            await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 1.0)
        assert await state(store, "before") == await state(store, "after") == EventState.SUCCEEDED
        assert await store.recall("key") == "value"
        assert await store.prune(2.0, limit=1) == 1
    assert audit_file(path).problems == ()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (KNOWN + 1,)


async def test_a_file_that_a_later_version_made_unusable_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with opened(path):
        pass
    upgrade(path, Step("ALTER TABLE event RENAME TO item", usable_since=KNOWN + 1))

    with (
        closing(apsw.Connection(str(path))) as connection,
        pytest.raises(StoreUnavailable, match=r"newer version .*restore a backup from before"),
    ):
        refuse_foreign(connection)


@pytest.mark.parametrize("known", range(1, KNOWN + 1))
def test_each_step_says_since_when_its_file_can_be_used(known: int, tmp_path: Path) -> None:
    assert 1 <= MIGRATIONS[known - 1].usable_since <= known
    with closing(apsw.Connection(str(tmp_path / "events.db"))) as connection:
        migrate(connection, MIGRATIONS[:known])
        migrate(connection)
        assert version(connection) == KNOWN
        refuse_foreign(connection)
