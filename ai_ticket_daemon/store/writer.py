"""The writer: an actor that owns the one connection that writes, and commits in groups.

All writes that wait at one moment share one transaction and, if any of them has to be durable, one
fsync; those that come meanwhile form the next group. So the rate of durable writes is not bound to
the speed of the disk, and a single one waits for nothing but itself.

A write that need not be durable (such as a claim: after a power cut the event is simply still
queued) is committed without an fsync. It still survives the end of the process, and becomes
durable with the next write that is.

A write that fails in a way nobody foresaw must not take its group along: the group is rolled back
and each of its writes tried in a transaction of its own.

When SQLite fails, all writes fail with its reason until one works again; the writer tries one of
its own every second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import apsw
import trio

from ai_ticket_daemon.errors import StoreUnavailable, TicketError
from ai_ticket_daemon.runtime.signal import Signal
from ai_ticket_daemon.store.connection import Connection
from ai_ticket_daemon.store.faults import NEEDS_REOPENING, explain, unavailable
from ai_ticket_daemon.store.schema import open_for_writing
from ai_ticket_daemon.store.tally import Tally
from ai_ticket_daemon.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ai_ticket_daemon.store.port import StoreObserver
    from ai_ticket_daemon.store.seat import Seat

MAX_WAITING = 20_000
"""Writes that may wait for the disk; more than all clients and workers can cause."""

LOOK_SECONDS = 1.0
"""How often a store that failed is tried, and one that works is looked at."""

CLOSE_SECONDS = 10.0
"""How long moving the log into the file may take at the end; the next start does it, if not."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Write(Generic[T]):
    operation: Callable[[Transaction], T]
    durable: bool
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
        vfs: SQLite's name of the file system to use; None for the usual one.
    """

    def __init__(
        self,
        path: Path,
        seat: Seat,
        observer: StoreObserver,
        *,
        on_open: Callable[[], None],
        vfs: str | None = None,
    ) -> None:
        self._path = path
        self._seat = seat
        self._observer = observer
        self._on_open = on_open
        self._vfs = vfs
        self._waiting: list[_Write[Any]] = []
        self._wake = Signal()
        self._connection: Connection | None = None
        self._inode: int | None = None
        self._failed_at = 0.0
        self.fault: str | None = None

    async def write(self, operation: Callable[[Transaction], T], *, durable: bool) -> T:
        """Carry out ``operation`` in a transaction and return what it returned.

        If the caller is cancelled, the write may or may not happen.

        Raises:
            TicketError: what the operation raised.
            StoreUnavailable: nothing was written, and why.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailable(f"{MAX_WAITING} writes wait for the disk already")
        write = _Write(operation, durable)
        self._waiting.append(write)
        self._wake.notify()
        await write.done.wait()
        if write.error is not None:
            raise write.error
        return write.result  # type: ignore[return-value]

    async def data_version(self) -> int:
        """Return a number that is another one after another daemon wrote to the file.

        Raises:
            StoreUnavailable: the file is not open.
        """
        connection = self._connection
        if connection is None:
            raise StoreUnavailable(self.fault or "the store is closed")
        return await connection.run(_data_version)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the file and write until cancelled; what still waits then is written, too.

        Raises:
            StoreUnavailable: the file cannot be opened.
        """
        try:
            await self._open(create=True)
            task_status.started()
            look_at = trio.current_time() + LOOK_SECONDS
            while True:
                seen = self._wake.version
                await self._write_groups()
                if trio.current_time() >= look_at:
                    await self._look()
                    look_at = trio.current_time() + LOOK_SECONDS
                with trio.move_on_at(look_at):
                    await self._wake.wait(seen)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
                await self._write_groups()
                await self._close()
            await self._write_groups()

    async def _open(self, *, create: bool) -> None:
        try:
            if create:
                _create_private(self._path)
            inode = self._path.stat().st_ino
            self._connection = await Connection.open(self._path, vfs=self._vfs)
            await self._connection.run(open_for_writing)
        except (apsw.Error, OSError, StoreUnavailable) as error:
            await self._close()
            raise StoreUnavailable(f"{self._path}: {explain(error)}") from error
        self._inode = inode

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _write_groups(self) -> None:
        """Write all that waits, and what comes while it is being written."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            if self._connection is None:
                for write in group:
                    write.error = StoreUnavailable(self.fault or "the store is closed")
            else:
                await self._commit(self._connection, group)
            for write in group:
                write.done.set()

    async def _commit(self, connection: Connection, group: Sequence[_Write[Any]]) -> None:
        # Not to be cut short: nobody would know what was written.
        with trio.CancelScope(shield=True):
            error = await connection.run(_commit, self._seat, group)
            if error is None:
                self._works()
                return
            self._fails(explain(error))
            if isinstance(error, NEEDS_REOPENING):
                await self._close()

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
        await self._commit(self._connection, [_Write(_touch, durable=True)])

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


def _commit(
    connection: apsw.Connection, seat: Seat, group: Sequence[_Write[Any]]
) -> Exception | None:
    """Carry out ``group`` in one transaction; return the error of SQLite that prevented it."""
    try:
        _transact(connection, seat, group)
    except (apsw.Error, OSError) as error:
        _roll_back(connection)
        for write in group:
            write.error = unavailable(error)
        return error
    except Exception as error:  # noqa: BLE001 - the edge of an operation: its group goes on
        _roll_back(connection)
        if len(group) == 1:
            group[0].error = error
            return None
        errors = [_commit(connection, seat, [write]) for write in group]
        return next((error for error in errors if error is not None), None)
    return None


def _transact(connection: apsw.Connection, seat: Seat, group: Sequence[_Write[Any]]) -> None:
    durable = any(write.durable for write in group)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")
    transaction = Transaction(connection, Tally(connection), seat)
    for write in group:
        write.error = None
        try:
            write.result = write.operation(transaction)
        except TicketError as error:
            write.error = error
    transaction.tally.save()
    connection.execute("COMMIT")


def _data_version(connection: apsw.Connection) -> int:
    return int(connection.pragma("data_version"))


def _roll_back(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _touch(transaction: Transaction) -> None:
    """Write something that changes nothing, to see whether it can be written."""
    transaction.connection.execute("UPDATE tally SET value = value WHERE name = 'accepted'")


def _create_private(path: Path) -> None:
    """Make the file, unless it is there, readable by nobody else: it will hold prompts."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _is_file(path: Path, inode: int | None) -> bool:
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False
