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

A write that fails in a way nobody foresaw must not take its group along: the group is rolled back
and each of its writes tried in a transaction of its own. When the disk fails, all writes fail with
the reason until one works again; the writer tries one of its own every second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import apsw
import trio

from ai_ticket_daemon.errors import StoreUnavailable, TicketError
from ai_ticket_daemon.runtime.signal import Signal
from ai_ticket_daemon.store.checkpointer import Checkpointer
from ai_ticket_daemon.store.faults import NEEDS_REOPENING, explain, unavailable
from ai_ticket_daemon.store.log_file import LogFile
from ai_ticket_daemon.store.schema import open_for_writing
from ai_ticket_daemon.store.tally import Tally
from ai_ticket_daemon.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from ai_ticket_daemon.store.port import StoreObserver
    from ai_ticket_daemon.store.seat import Seat

MAX_WAITING = 20_000
"""Writes that may wait for the disk; more than all clients and workers can cause."""

LOOK_SECONDS = 1.0
"""How often a store that failed is tried, and one that works is looked at."""

CLOSE_SECONDS = 10.0
"""How long moving the log into the file may take at the end; the next start does it, if not."""

LOCKED_MILLISECONDS = 2000
"""How long to wait for another daemon that has the file locked."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Write(Generic[T]):
    operation: Callable[[Transaction], T]
    durable: bool
    long: bool
    done: trio.Event = field(default_factory=trio.Event)
    result: T | None = None
    error: Exception | None = None


class Writer:
    """Writes to the file ``path`` as the daemon in ``seat``.

    Args:
        path: the file.
        seat: who writes.
        observer: is told when the store fails and recovers.
        on_open: is called when the file was opened anew, after a failure.
        log: syncs the log.
        vfs: SQLite's name of the file system to use; None for the usual one.
    """

    def __init__(
        self,
        path: Path,
        seat: Seat,
        observer: StoreObserver,
        *,
        on_open: Callable[[], None],
        log: LogFile | None = None,
        vfs: str | None = None,
    ) -> None:
        self._path = path
        self._seat = seat
        self._observer = observer
        self._on_open = on_open
        self._log = log or LogFile(path)
        self._vfs = vfs
        self._waiting: list[_Write[Any]] = []
        self._wake = Signal()
        self._checkpointer = Checkpointer(path, nearly_done=self._wake, vfs=vfs)
        self._log_pages = 0
        self._connection: apsw.Connection | None = None
        self._tally: Tally | None = None
        self._in_thread = False
        self._syncing = False
        self._synced = Signal()
        self._inode: int | None = None
        self._failed_at = 0.0
        self.fault: str | None = None

    async def write(
        self, operation: Callable[[Transaction], T], *, durable: bool, long: bool = False
    ) -> T:
        """Carry out ``operation`` in a transaction and return what it returned.

        If the caller is cancelled, the write may or may not happen.

        Args:
            operation: what to do.
            durable: return only when it would survive a power cut.
            long: it touches many rows.

        Raises:
            TicketError: what the operation raised.
            StoreUnavailable: nothing was written, and why.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable(f"{MAX_WAITING} writes wait for the disk already")
        write = _Write(operation, durable, long)
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
        if self._connection is None or self._in_thread:
            return None
        return _data_version(self._connection)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the file and write until cancelled; what still waits then is written, too.

        Raises:
            StoreUnavailable: the file cannot be opened.
        """
        try:
            await self._open(create=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._checkpointer.run)
                task_status.started()
                await self._write_and_look()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                await self._write_groups()
                await self._close()
            self._connection = None
            await self._write_groups()

    async def _write_and_look(self) -> None:
        look_at = trio.current_time() + LOOK_SECONDS
        while True:
            seen = self._wake.version
            await self._write_groups()
            if self._checkpointer.has_rest and self._connection is not None:
                await self._alone(self._checkpointer.move_rest, self._connection)
            if trio.current_time() >= look_at:
                await self._look()
                look_at = trio.current_time() + LOOK_SECONDS
            with trio.move_on_at(look_at):
                await self._wake.wait(seen)

    async def _open(self, *, create: bool) -> None:
        try:
            opened = await trio.to_thread.run_sync(_open, self._path, self._vfs, create)
        except (apsw.Error, OSError, StoreUnavailable) as error:
            raise StoreUnavailable(f"{self._path}: {explain(error)}") from error
        self._connection, self._inode = opened
        self._connection.set_wal_hook(self._on_commit)
        self._tally = None

    def _on_commit(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        await trio.to_thread.run_sync(self._log.close)
        if connection is not None:
            await trio.to_thread.run_sync(connection.close)

    async def _write_groups(self) -> None:
        """Write all that waits, and what comes while it is being written."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            if self._connection is None:
                for write in group:
                    write.error = StoreUnavailable(self.fault or "the store is closed")
            else:
                # Not to be cut short: nobody would know what was written.
                with trio.CancelScope(shield=True):
                    await self._write_group(self._connection, group)
            for write in group:
                write.done.set()

    async def _write_group(self, connection: apsw.Connection, group: Sequence[_Write[Any]]) -> None:
        durable = any(write.durable for write in group)
        self._syncing = durable
        try:
            error = await self._transact_somewhere(connection, group)
            if error is None and durable:
                error = await self._sync(group)
        finally:
            self._syncing = False
            self._synced.notify()
        self._checkpointer.grew(self._log_pages)
        if error is not None:
            await self._failed(error)
        elif durable:
            self._works()

    async def _transact_somewhere(
        self, connection: apsw.Connection, group: Sequence[_Write[Any]]
    ) -> Exception | None:
        """Carry out ``group``: here, or in a thread if it is long or has to wait for a lock."""
        if not any(write.long for write in group):
            error = self._transact(connection, group)
            if not isinstance(error, apsw.BusyError):
                return error
        return await self._alone(
            trio.to_thread.run_sync, self._transact_patiently, connection, group
        )

    async def _alone(self, use: Callable[..., Awaitable[T]], *args: object) -> T:
        """Use the connection in a thread, while nothing else uses it."""
        self._in_thread = True
        try:
            with trio.CancelScope(shield=True):
                result = await use(*args)
        finally:
            self._in_thread = False
        return result

    def _at_once(self, write: _Write[Any]) -> bool:
        """Carry out one write here and now; False, and nothing done, if that cannot be."""
        if self._connection is None or self._in_thread:
            return False
        # An error is told to whoever waits for the write when it is tried again in a group.
        return self._transact(self._connection, [write]) is None

    async def _sync(self, group: Sequence[_Write[Any]]) -> Exception | None:
        try:
            await trio.to_thread.run_sync(self._log.sync)
        except OSError as error:
            for write in group:
                if write.durable and write.error is None:
                    write.error = unavailable(error)
            return error
        return None

    def _transact_patiently(
        self, connection: apsw.Connection, group: Sequence[_Write[Any]]
    ) -> Exception | None:
        connection.set_busy_timeout(LOCKED_MILLISECONDS)
        try:
            return self._transact(connection, group)
        finally:
            connection.set_busy_timeout(0)

    def _transact(
        self, connection: apsw.Connection, group: Sequence[_Write[Any]]
    ) -> Exception | None:
        """Carry out ``group`` in one transaction; return the error that prevented it."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            tally = self._tally = self._tally_of(connection)
            transaction = Transaction(connection, tally, self._seat)
            for write in group:
                write.error = None
                try:
                    write.result = write.operation(transaction)
                except TicketError as error:
                    write.error = error
            tally.save()
            connection.execute("COMMIT")
        except (apsw.Error, OSError) as error:
            self._roll_back(connection)
            for write in group:
                write.error = unavailable(error)
            return error
        except Exception as error:  # noqa: BLE001 - the edge of an operation: its group goes on
            self._roll_back(connection)
            if len(group) == 1:
                group[0].error = error
                return None
            errors = [self._transact(connection, [write]) for write in group]
            return next((error for error in errors if error is not None), None)
        return None

    def _tally_of(self, connection: apsw.Connection) -> Tally:
        """Return the totals; read anew only if another daemon may have changed them."""
        version = _data_version(connection)
        if self._tally is not None and self._tally.version == version:
            return self._tally
        return Tally(connection, version)

    def _roll_back(self, connection: apsw.Connection) -> None:
        self._tally = None
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    async def _failed(self, error: Exception) -> None:
        self._fails(explain(error))
        if isinstance(error, NEEDS_REOPENING):
            await self._close()

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
        if self._connection is not None and not _is_file(self._path, self._inode):
            self._fails("the file was removed or replaced: put it back")
            await self._close()
        if self.fault is None:
            return
        if self._connection is None:
            try:
                await self._open(create=False)
            except StoreUnavailable as error:
                self._fails(error.message)
                return
            self._on_open()
        assert self._connection is not None  # noqa: S101 - opened above
        trial = _Write(partial(_touch, at=trio.current_time()), durable=True, long=True)
        with trio.CancelScope(shield=True):
            await self._write_group(self._connection, [trial])


def _data_version(connection: apsw.Connection) -> int:
    return int(connection.pragma("data_version"))


def _open(path: Path, vfs: str | None, create: bool) -> tuple[apsw.Connection, int]:
    """Open the file; make it first if it may be made, readable by nobody else."""
    if create:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    inode = path.stat().st_ino
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        connection.set_busy_timeout(LOCKED_MILLISECONDS)
        open_for_writing(connection)
        connection.set_busy_timeout(0)
    except BaseException:
        connection.close()
        raise
    return connection, inode


def _touch(transaction: Transaction, *, at: float) -> None:
    """Write something, to see whether it can be written; the same value would write nothing."""
    transaction.connection.execute("INSERT OR REPLACE INTO note VALUES ('touched', ?)", (str(at),))


def _is_file(path: Path, inode: int | None) -> bool:
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False
