"""The file of the SQLite store as its one writer has it open, and the transactions on it.

Nothing here waits for anything but the disk: the writer decides what runs where, one at a time.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import apsw

from ai_ticket_daemon.errors import StoreUnavailable, TicketError
from ai_ticket_daemon.store.sqlite.faults import PROGRAM_FAULTS, explain, unavailable
from ai_ticket_daemon.store.sqlite.schema import LOCKED_MILLISECONDS, open_for_writing
from ai_ticket_daemon.store.sqlite.statements.totals import Totals
from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLock

T = TypeVar("T")

MOVE_SECONDS = 10.0
"""How long readers may keep a log that was removed from being moved."""
MOVE_AGAIN_SECONDS = 0.01


@dataclass(slots=True, eq=False)
class Operation(Generic[T]):
    """Something to do in a transaction, and what came of it: a result or an error."""

    do: Callable[[Transaction], T]
    result: T | None = None
    error: Exception | None = None


class Database:
    """The open file. Not to be used by two threads at a time.

    ``log_pages`` is how long SQLite's log was after the last commit.

    Args:
        path: the file.
        instance_lock: of the daemon that writes.
        vfs: SQLite's name of the file system to use; None for the usual one.
        create: make the file if it is missing, readable by nobody else.

    Raises:
        StoreUnavailable: it cannot be opened.
    """

    def __init__(
        self, path: Path, instance_lock: InstanceLock, *, vfs: str | None, create: bool
    ) -> None:
        self._path = path
        self._instance_lock = instance_lock
        self._totals: Totals | None = None
        self.log_pages = 0
        try:
            if create:
                _create(path)
            self._file = path.stat()
            self.connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
        except (apsw.Error, OSError, MemoryError) as error:
            raise _cannot_open(path, error) from error
        try:
            self.connection.set_busy_timeout(LOCKED_MILLISECONDS)
            open_for_writing(self.connection)
        except (apsw.Error, StoreUnavailable, MemoryError) as error:
            self.connection.close()
            raise _cannot_open(path, error) from error
        self.connection.set_busy_timeout(0)
        self.connection.set_wal_hook(self._note_log)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def is_in_place(self) -> bool:
        """Tell whether the file that is open is still the one at its path."""
        try:
            return os.path.samestat(self._path.stat(), self._file)
        except OSError:
            return False

    def move_log(self) -> None:
        """Move what is in the log into the file, since nobody finds the log any more.

        Whoever reads just now keeps some of it from being moved, so it is tried again for a while:
        what is left behind would be lost, and keep the file from being opened anew.
        """
        until = time.monotonic() + MOVE_SECONDS
        while time.monotonic() < until:
            with suppress(apsw.Error):
                pages, moved = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if moved == pages:
                    return
            time.sleep(MOVE_AGAIN_SECONDS)

    def version(self) -> int:
        """Return a number that is another one after another connection wrote to the file."""
        return int(self.connection.pragma("data_version"))

    def transact(self, group: Sequence[Operation[Any]]) -> Exception | None:
        """Carry out ``group`` in one transaction; return the error that prevented it.

        One that fails in a way nobody foresaw does not take the others along: the transaction is
        rolled back, and each is tried in one of its own.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self._carry_out(group)
            self.connection.execute("COMMIT")
        except PROGRAM_FAULTS as error:
            return self._one_by_one(group, error)
        except (apsw.Error, OSError, MemoryError) as error:
            self._roll_back()
            for operation in group:
                operation.error = unavailable(error)
            return error
        except Exception as error:  # noqa: BLE001 - the edge of an operation: its group goes on
            return self._one_by_one(group, error)
        return None

    def _one_by_one(self, group: Sequence[Operation[Any]], error: Exception) -> Exception | None:
        self._roll_back()
        if len(group) == 1:
            group[0].error = error
            return None
        errors = [self.transact([operation]) for operation in group]
        return next((error for error in errors if error is not None), None)

    def transact_patiently(self, group: Sequence[Operation[Any]]) -> Exception | None:
        """Do the same, but wait for another daemon that has the file locked."""
        self.connection.set_busy_timeout(LOCKED_MILLISECONDS)
        try:
            return self.transact(group)
        finally:
            self.connection.set_busy_timeout(0)

    def _carry_out(self, group: Sequence[Operation[Any]]) -> None:
        version = self.version()
        if self._totals is None or self._totals.version != version:
            self._totals = Totals(self.connection, version)
        transaction = Transaction(self.connection, self._totals, self._instance_lock)
        for operation in group:
            operation.error = None
            try:
                operation.result = operation.do(transaction)
            except TicketError as error:
                operation.error = error
        self._totals.save()

    def _roll_back(self) -> None:
        self._totals = None
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _note_log(self, _: apsw.Connection, __: str, pages: int) -> int:
        self.log_pages = pages
        return apsw.SQLITE_OK


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _cannot_open(path: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"{path}: {explain(error)}")
