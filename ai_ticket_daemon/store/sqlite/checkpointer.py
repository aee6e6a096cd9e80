"""The checkpointer: an actor that moves SQLite's log into the file before it grows too long.

It has a connection and a thread of its own, so that neither the event loop nor a write waits for
it. But a log to which is written meanwhile is never moved whole, and only one that was can be begun
anew; so the writer moves the little that is left itself, between two groups
(https://sqlite.org/wal.html#ckpt).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import trio

from ai_ticket_daemon.store.sqlite.schema import LOG_BYTES
from ai_ticket_daemon.store.sqlite.threads import KeptThread
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from pathlib import Path

LONG_PAGES = 4000
"""From this length on, about 16 MB, the log is moved into the file."""

AGAIN_SECONDS = 1.0
"""How long to wait if the log could not be moved, for instance because the disk is full."""


class Checkpointer:
    """Moves the log of the file ``path``.

    Args:
        path: the database file.
        nearly_done: changes when all but the newest pages were moved.
        vfs: SQLite's name of the file system to use; None for the usual one.
    """

    def __init__(self, path: Path, *, nearly_done: Wakeup, vfs: str | None = None) -> None:
        self._path = path
        self._nearly_done = nearly_done
        self._vfs = vfs
        self._pages = 0
        self._due_pages = LONG_PAGES
        self._due = Wakeup()
        self._rest_moved = Wakeup()
        self.has_rest = False
        """Whether the writer is to move what is left, by :meth:`move_rest`."""
        self.thread = KeptThread("checkpoint")
        """Runs from before :meth:`run` to its end."""

    def grew(self, pages: int) -> None:
        """Note how long the log is after a commit; a shorter one was begun anew."""
        if pages < self._pages:
            self._due_pages = LONG_PAGES
        self._pages = pages
        if pages >= self._due_pages:
            self._due_pages = pages + LONG_PAGES
            self._due.notify()

    async def run(self) -> None:
        """Move the log whenever it has become long; runs until cancelled."""
        seen = self._due.version
        while True:
            await self._due.wait(seen)
            seen = self._due.version
            if await self.thread.run(_move_all, self._path, self._vfs):
                self.has_rest = True
                self._nearly_done.notify()
                await self._rest_moved.wait(self._rest_moved.version)
            if self._pages >= LONG_PAGES:  # Still: somebody reads, or the disk refused.
                await trio.sleep(AGAIN_SECONDS)
                self._due.notify()

    async def move_rest(self, by: KeptThread, connection: apsw.Connection) -> None:
        """Move what was written since, and cut the log; nothing may be written meanwhile."""
        self.has_rest = False
        if await by.run(_cut, connection):
            self._pages, self._due_pages = 0, LONG_PAGES
        self._rest_moved.notify()


def _move_all(path: Path, vfs: str | None) -> bool:
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
        try:
            # A connection that has read nothing does not know yet that there is a log.
            connection.pragma("schema_version")
            return _move(connection)
        finally:
            connection.close()
    except (apsw.Error, MemoryError):
        return False


def _move(connection: apsw.Connection) -> bool:
    """Move what can be moved without keeping readers waiting; False if the disk refused."""
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except (apsw.Error, MemoryError):
        return False
    return True


def _cut(connection: apsw.Connection) -> bool:
    """Move all that is left and cut the log; False if somebody reads from it, or the disk refused.

    A log that is cut to nothing has to grow again, which costs: one of the usual length is kept.
    """
    try:
        pages, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        if pages * connection.pragma("page_size") > LOG_BYTES:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except (apsw.Error, MemoryError):
        return False
    return moved == pages
