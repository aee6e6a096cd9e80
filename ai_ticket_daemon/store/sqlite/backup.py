"""Copying the store's file while it is in use, by SQLite's backup API (sqlite.org/backup.html)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import apsw
import trio

from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.store.sqlite.connection import Connection, value
from ai_ticket_daemon.store.sqlite.faults import unavailable

if TYPE_CHECKING:
    from pathlib import Path

_STEP_PAGES = 256


async def copy(source: Path, target: Path, *, vfs: str | None) -> None:
    """Copy ``source`` as it is at this moment to ``target``, which must not exist.

    The copy is made in a thread of its own from one snapshot; it neither waits for writers nor
    makes them wait. It belongs to nobody else, like the original. When cancelled, it is removed.

    Raises:
        StoreUnavailable: the one cannot be read or the other not be written.
    """
    stop = threading.Event()
    finished = False
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = await Connection.open(source, vfs=vfs)
        try:
            await connection.run(_copy, target, stop)
        finally:
            stop.set()
            with trio.CancelScope(shield=True):
                await connection.aclose()
        finished = True
    except FileExistsError as error:
        finished = True  # It is somebody else's.
        raise unavailable(error) from error
    except (apsw.Error, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and exhausted(error) is None:
            raise
        raise unavailable(error) from error
    finally:
        if not finished:
            _remove(target)


def _remove(target: Path) -> None:
    target.unlink(missing_ok=True)


def _copy(source: apsw.Connection, target: Path, stop: threading.Event) -> None:
    source.execute("PRAGMA query_only = ON")
    source.execute("BEGIN")
    value(source, "SELECT count(*) FROM sqlite_schema")  # From here on it is one snapshot.
    copy = apsw.Connection(str(target))
    try:
        with copy.backup("main", source, "main") as steps:
            while not steps.done and not stop.is_set():
                steps.step(_STEP_PAGES)
        copy.pragma("journal_mode", "delete")
    finally:
        copy.close()
        source.execute("ROLLBACK")
