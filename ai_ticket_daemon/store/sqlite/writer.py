"""The writer: an actor that owns the one connection that writes; makes writes durable in groups.

What a transaction does takes microseconds and touches memory; what takes long is the fsync. So
transactions run where they are asked for, on the event loop, and only the fsync runs in a thread.
While one runs, writes that have to be durable gather; they then share one transaction and the next
fsync. So the rate of durable writes is not bound to the speed of the disk, and a single one waits
for one fsync and nothing else.

A write that need not be durable (such as a claim: after a power cut the event is simply still
queued) is carried out at once. It survives the end of the process, and becomes durable with the
next fsync. A write that touches many rows runs in the thread, and so does one that finds the file
locked by another daemon.

SQLite is therefore told not to sync by itself (``synchronous=NORMAL``: it still does where the log
is moved into the file), and the log is synced here.

When the disk fails, all writes fail with the reason until one works again; the writer tries one of
its own every second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import apsw
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.store.sqlite.checkpointer import Checkpointer
from ai_ticket_daemon.store.sqlite.database import Database, Operation
from ai_ticket_daemon.store.sqlite.faults import CLOSED, NEEDS_REOPENING, explain, unavailable
from ai_ticket_daemon.store.sqlite.log_file import LogFile
from ai_ticket_daemon.store.sqlite.threads import KeptThread
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from ai_ticket_daemon.store.port import StoreObserver
    from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLock
    from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction

MAX_WAITING = 20_000
"""Writes that may wait for the disk; more than all clients and workers can cause."""

GROUP_WRITES = 100
"""Writes that share a transaction at the most: it is one turn of the event loop."""

LOOK_SECONDS = 1.0
"""How often a store that failed is tried, and one that works is looked at."""

CLOSE_SECONDS = 10.0
"""How long moving the log into the file may take at the end; the next start does it, if not."""

REMOVED = "the file was removed or replaced: put it back"

LOG_REMOVED = "its log (the -wal file) was removed or replaced; it is opened anew"

T = TypeVar("T")


class _Removed(StoreUnavailable):
    """What was written is in a file that has no name any more."""


class _LogRemoved(_Removed):
    """It is in a log that has no name any more; the file itself is in place."""


@dataclass(slots=True, eq=False)
class _Write(Operation[T]):
    durable: bool = True
    long: bool = False
    done: trio.Event = field(default_factory=trio.Event)


class Writer:
    """Writes to the file ``path`` as the daemon that holds ``instance_lock``.

    Args:
        path: the file.
        instance_lock: of the daemon that writes.
        observer: is told when the store fails and recovers.
        on_open: is called when the file was opened anew, after a failure.
        log: syncs the log; None for the usual way.
        vfs: SQLite's name of the file system to use; None for the usual one.
    """

    def __init__(
        self,
        path: Path,
        instance_lock: InstanceLock,
        observer: StoreObserver,
        *,
        on_open: Callable[[], None],
        log: LogFile | None = None,
        vfs: str | None = None,
    ) -> None:
        self._open_database = partial(Database, path, instance_lock, vfs=vfs)
        self._observer = observer
        self._on_open = on_open
        self._log = log or LogFile(path)
        self._waiting: list[_Write[Any]] = []
        self._wake = Wakeup()
        self._checkpointer = Checkpointer(path, nearly_done=self._wake, vfs=vfs)
        self._database: Database | None = None
        self._thread = KeptThread("store")
        self._in_thread = False
        self._syncing = False
        self._synced = Wakeup()
        self._failed_at = 0.0
        self._ended = False
        self.fault: str | None = None

    async def write(
        self, do: Callable[[Transaction], T], *, durable: bool, long: bool = False
    ) -> T:
        """Carry out ``do`` in a transaction and return what it returned.

        If the caller is cancelled, the write may or may not happen.

        Args:
            do: what to do.
            durable: return only when it would survive a power cut.
            long: it touches many rows.

        Raises:
            TicketError: what the operation raised.
            StoreUnavailable: nothing was written, and why.
        """
        if self._ended:
            raise StoreUnavailable(CLOSED)
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable(f"{MAX_WAITING} writes wait for the disk already")
        write = _Write(do, durable=durable, long=long)
        if durable or long or not self._at_once(write):
            self._waiting.append(write)
            self._wake.notify()
            await write.done.wait()
        if write.error is not None:
            raise write.error
        return write.result  # type: ignore[return-value]

    async def settled(self) -> None:
        """Return when all that can be read now would survive a power cut."""
        if self._syncing:
            await self._synced.wait(self._synced.version)

    def data_version(self) -> int | None:
        """Return a number that is another one after another daemon wrote; None while unknown."""
        if self._database is None or self._in_thread:
            return None
        return self._database.version()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the file and write until cancelled; what still waits then is written, too.

        Raises:
            StoreUnavailable: the file cannot be opened.
        """
        self._ended = False
        self._start_threads()
        try:
            self._database = await self._thread.run(partial(self._open_database, create=True))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._checkpointer.run)
                task_status.started()
                await self._write_and_look()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                await self._write_groups()
                await self._close()
            self._database, self._ended = None, True
            await self._write_groups()
            self._thread.end()
            self._checkpointer.thread.end()

    def _start_threads(self) -> None:
        """Start all threads the store will ever need, before it promises anything."""
        try:
            self._thread.start()
            self._checkpointer.thread.start()
        except RuntimeError as error:
            raise unavailable(error) from error

    async def _write_and_look(self) -> None:
        look_at = trio.current_time() + LOOK_SECONDS
        while True:
            seen = self._wake.version
            await self._write_groups()
            if self._checkpointer.has_rest and self._database is not None:
                move_rest = partial(self._checkpointer.move_rest, self._thread)
                await self._alone(move_rest, self._database.connection)
            if trio.current_time() >= look_at:
                await self._look()
                look_at = trio.current_time() + LOOK_SECONDS
            with trio.move_on_at(look_at):
                await self._wake.wait(seen)

    async def _close(self) -> None:
        database, self._database = self._database, None
        await self._thread.run(self._log.close)
        if database is not None:
            await self._thread.run(database.close)

    async def _write_groups(self) -> None:
        """Write all that waits, and what comes while it is being written."""
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP_WRITES], self._waiting[GROUP_WRITES:]
            if self._database is None:
                for write in group:
                    write.error = StoreUnavailable(self.fault or CLOSED)
            else:
                # Not to be cut short: nobody would know what was written.
                with trio.CancelScope(shield=True):
                    await self._write_group(self._database, group)
            for write in group:
                write.done.set()

    async def _write_group(self, database: Database, group: Sequence[_Write[Any]]) -> None:
        durable = any(write.durable for write in group)
        self._syncing = durable
        try:
            error = await self._transact(database, group)
            if error is None and durable:
                error = await self._sync(database, group)
        finally:
            self._syncing = False
            self._synced.notify()
        self._checkpointer.grew(database.log_pages)
        if error is not None:
            self._fails(explain(error))
            if isinstance(error, _LogRemoved):
                await self._alone(self._thread.run, database.move_log)
            if isinstance(error, (*NEEDS_REOPENING, _Removed)):
                await self._close()
        elif durable:
            self._works()

    async def _transact(self, database: Database, group: Sequence[_Write[Any]]) -> Exception | None:
        """Carry out ``group``: here, or in a thread if it is long or has to wait for a lock."""
        if not any(write.long for write in group):
            error = database.transact(group)
            if not isinstance(error, apsw.BusyError):
                return error
        return await self._alone(self._thread.run, database.transact_patiently, group)

    async def _alone(self, use: Callable[..., Awaitable[T]], *args: object) -> T:
        """Use the database in a thread, while nothing else uses it."""
        self._in_thread = True
        try:
            with trio.CancelScope(shield=True):
                result = await use(*args)
        finally:
            self._in_thread = False
        return result

    def _at_once(self, write: _Write[Any]) -> bool:
        """Carry out one write here and now; False, and nothing done, if that cannot be."""
        if self._database is None or self._in_thread:
            return False
        # An error is told to whoever waits for the write when it is tried again in a group.
        return self._database.transact([write]) is None

    async def _sync(self, database: Database, group: Sequence[_Write[Any]]) -> Exception | None:
        try:
            await self._thread.run(self._sync_in_place, database)
        except (OSError, MemoryError, _Removed) as error:
            for write in group:
                if write.durable and write.error is None:
                    write.error = unavailable(error)
            return error
        return None

    def _sync_in_place(self, database: Database) -> None:
        """Sync the log; what is told to be durable has to be in files that are found again."""
        self._log.sync()
        if not database.is_in_place():
            raise _Removed(REMOVED)
        if not self._log.is_in_place():
            raise _LogRemoved(LOG_REMOVED)

    def _works(self) -> None:
        if self.fault is not None:
            self.fault = None
            self._observer.store_recovered(trio.current_time() - self._failed_at)

    def _fails(self, reason: str) -> None:
        if self.fault is None:
            self._failed_at = trio.current_time()
        if self.fault != reason:
            self.fault = reason
            self._observer.store_failed(reason)

    async def _look(self) -> None:
        """See whether the store that failed works again, and the one that worked is still there."""
        if self._database is not None and not self._database.is_in_place():
            self._fails(REMOVED)
            await self._close()
        if self.fault is None:
            return
        if self._database is None:
            try:
                self._database = await self._thread.run(partial(self._open_database, create=False))
            except StoreUnavailable as error:
                missing = isinstance(error.__cause__, FileNotFoundError)
                self._fails(REMOVED if missing else error.message)
                return
            self._on_open()
        trial = _Write(partial(_touch, at=trio.current_time()), long=True)
        with trio.CancelScope(shield=True):
            await self._write_group(self._database, [trial])


def _touch(transaction: Transaction, *, at: float) -> None:
    """Write something, to see whether it can be written; the same value would write nothing."""
    transaction.connection.execute(
        "INSERT OR REPLACE INTO note (key, value) VALUES ('touched', ?)", (str(at),)
    )
