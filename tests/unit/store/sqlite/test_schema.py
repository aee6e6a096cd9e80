"""Files of earlier versions are brought up to date, and lose nothing by it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import pytest

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Attempt
from ai_ticket_daemon.store.port import Change
from ai_ticket_daemon.store.sqlite.audit import audit_file
from ai_ticket_daemon.store.sqlite.schema import MIGRATIONS, migrate, version
from ai_ticket_daemon.store.sqlite.statements.codec import encode
from tests.support.store.store_support import claimed, event, opened

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.events.event import Event

OLD_ATTEMPT = {
    "backend": "primary",
    "started_at": 1.0,
    "ended_at": 2.0,
    "error": "api_server_error",
    "message": "it failed",
    "counted": True,
    "backend_died": False,
    "elsewhere": True,
}
"""An attempt as it was written before its tokens were counted."""


def write_old_file(path: Path, steps: int, old: Event) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        migrate(connection, MIGRATIONS[:steps])
        connection.execute(
            "INSERT INTO event (seq, event_id, state, priority, submitted_at, deadline_at, due_at, "
            "token, owner, attempts) VALUES (1, ?, 'queued', 5, 0, 100, 0, 1, '', ?)",
            (old.event_id, json.dumps([OLD_ATTEMPT]).encode()),
        )
        connection.execute("INSERT INTO content VALUES (1, ?)", (encode(old),))
        connection.execute("UPDATE tally SET value = 1 WHERE name IN ('accepted', 'queued')")
        connection.execute("INSERT INTO tally VALUES ('queued:5', 1)")


@pytest.mark.parametrize("steps", range(1, len(MIGRATIONS)))
async def test_an_old_file_is_brought_up_to_date_and_used(steps: int, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    write_old_file(path, steps, event("old"))
    async with opened(path) as store:
        record = await store.get("old")
        assert record is not None
        [attempt] = record.attempts
        assert attempt == Attempt(
            "primary", 1.0, 2.0, ErrorCode.API_SERVER_ERROR, "it failed", elsewhere=True
        )
        assert (attempt.tokens, attempt.retried) == (None, None)
        assert (await claimed(store)).attempts == (attempt,)
        await store.note_changes([Change(1.0, "the daemon was started")])
        assert await store.changes(0, 2) == [Change(1.0, "the daemon was started")]
    with closing(apsw.Connection(str(path))) as connection:
        assert version(connection) == len(MIGRATIONS)
    audit = audit_file(path)
    assert (audit.difference, audit.problems) == (0, ())
