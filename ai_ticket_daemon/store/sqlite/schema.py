"""The tables of the SQLite store, and how a file comes to have them.

The file says in ``user_version`` which schema it has. An older one is brought up to date step by
step, each step in a transaction of its own. A newer one says since which schema it can be used:
this program goes on with it if that is not too new, and refuses it else, since it would not know
what it must not do to it.

Every index that serves the running daemon is partial: it holds just the events of one state, so
that what ended long ago costs nothing, and claiming, ending and asking cost the same whatever the
number of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.sqlite.connection import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

APPLICATION_ID = 0x41_49_54_4B
"""Marks the file as ours ("AITK"); other files are refused."""

LOCKED_MILLISECONDS = 2000
"""How long to wait, where waiting is allowed, for another daemon that has the file locked."""

LOG_BYTES = 32 * 1024 * 1024
"""What the log may keep of the disk when it is begun anew; a burst makes it longer for a while."""

_CACHE_KIB = 8 * 1024

_VERSION_1 = """
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,            -- the order of acceptance
    event_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitted_at REAL NOT NULL,         -- all times: seconds since the Unix epoch
    deadline_at REAL NOT NULL,
    due_at REAL NOT NULL,               -- 0: at once; else not to be claimed before
    home INTEGER,                       -- the seat whose client waits for it
    holder INTEGER,                     -- while running: the seat that runs it ...
    token INTEGER NOT NULL,             -- ... under its how manieth lease ...
    backend TEXT,                       -- ... where ...
    claimed_at REAL,                    -- ... since when ...
    lease_until REAL,                   -- ... and until when, unless extended
    ended_at REAL,
    error TEXT,                         -- the code, if it ended without a completion
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    digest BLOB,                        -- of the payload, if there is a key
    attempts BLOB                       -- JSON; NULL if none yet, or ended
);
CREATE TABLE content (seq INTEGER PRIMARY KEY, event BLOB NOT NULL);      -- JSON of the event
CREATE TABLE result (seq INTEGER PRIMARY KEY, outcome BLOB NOT NULL);     -- JSON of the outcome
CREATE TABLE tally (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE INDEX event_ready ON event (priority, seq) WHERE state = 'queued' AND due_at = 0;
CREATE INDEX event_later ON event (due_at, submitted_at) WHERE state = 'queued' AND due_at > 0;
CREATE INDEX event_deadline ON event (deadline_at) WHERE state = 'queued';
CREATE INDEX event_home ON event (home) WHERE state = 'queued' AND home IS NOT NULL;
CREATE INDEX event_running ON event (holder) WHERE state = 'running';
CREATE INDEX event_ended ON event (ended_at) WHERE ended_at IS NOT NULL;
CREATE UNIQUE INDEX event_key ON event (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
"""

_VERSION_2 = """
ALTER TABLE event ADD COLUMN ahead INTEGER;    -- how many waited before it when it was accepted
"""

_VERSION_3 = """
CREATE TABLE change (id INTEGER PRIMARY KEY, at REAL NOT NULL, text TEXT NOT NULL);
"""

_VERSION_4 = """
ALTER TABLE event ADD COLUMN beginning BLOB;     -- a digest of what its prompt begins with
ALTER TABLE event ADD COLUMN overtaken INTEGER;  -- how many were taken ahead of it; NULL: none ...
ALTER TABLE event ADD COLUMN overtaken_at REAL;  -- ... and when the first one was
"""

USABLE_SINCE = "schema_usable_since"
"""The note that says from which schema on a program can use the file."""


class Step(NamedTuple):
    """Brings a file from one schema to the next.

    ``usable_since`` is the oldest schema whose programs can use the file afterwards. A step that
    only adds tables, indexes and columns that may be NULL leaves it as it was, so that an upgrade
    can be taken back.
    """

    sql: str
    usable_since: int


MIGRATIONS: Sequence[Step] = (
    Step(_VERSION_1, 1),
    Step(_VERSION_2, 2),
    Step(_VERSION_3, 2),
    Step(_VERSION_4, 2),
)
"""Step N brings a file of version N to version N + 1."""


def open_for_writing(connection: apsw.Connection) -> None:
    """Prepare ``connection``, which the writer makes durable, and bring its schema up to date.

    Raises:
        StoreUnavailable: the file belongs to a newer version or to another program.
        apsw.Error: SQLite cannot use it.
    """
    refuse_foreign(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA synchronous = NORMAL")
    migrate(connection)


def open_for_reading(connection: apsw.Connection) -> None:
    """Keep ``connection`` from ever writing."""
    connection.set_busy_timeout(LOCKED_MILLISECONDS)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB // 4}")
    connection.execute("PRAGMA query_only = ON")


def migrate(connection: apsw.Connection, steps: Sequence[Step] = MIGRATIONS) -> None:
    """Bring the file's schema up to date."""
    while version(connection) < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            at = version(connection)  # Another daemon may have been faster.
            if at < len(steps):
                connection.execute(steps[at].sql)
                connection.execute(f"PRAGMA user_version = {at + 1}")
                connection.execute(
                    "INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)",
                    (USABLE_SINCE, str(steps[at].usable_since)),
                )
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                if at == 0:
                    _start_tally(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def version(connection: apsw.Connection) -> int:
    """Return the version of the file's schema; 0 for an empty file."""
    return int(connection.pragma("user_version"))


def refuse_foreign(connection: apsw.Connection) -> None:
    """Refuse a file that this version must not touch.

    Raises:
        StoreUnavailable: the file belongs to a newer version or to another program.
    """
    found = version(connection)
    if found > len(MIGRATIONS) and _usable_since(connection, found) > len(MIGRATIONS):
        raise StoreUnavailable(
            f"the store was written by a newer version (schema {found}, this one knows "
            f"{len(MIGRATIONS)}): start that version, or restore a backup from before"
        )
    application = connection.pragma("application_id")
    is_new = found == 0 and value(connection, "SELECT 1 FROM sqlite_schema LIMIT 1") is None
    if application != APPLICATION_ID and not is_new:
        raise StoreUnavailable(
            "the file is a database of another program: give this one another file"
        )


def _usable_since(connection: apsw.Connection, found: int) -> int:
    """Return the oldest schema whose programs can use a file of the schema ``found``."""
    if value(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'note'") is None:
        return found
    noted = value(connection, "SELECT value FROM note WHERE key = ?", USABLE_SINCE)
    return found if noted is None else int(noted)


def _start_tally(connection: apsw.Connection) -> None:
    connection.executemany(
        "INSERT INTO tally (name, value) VALUES (?, 0)",
        [("accepted",), *((state.value,) for state in EventState)],
    )
