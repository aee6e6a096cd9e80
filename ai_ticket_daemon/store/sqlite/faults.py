"""What SQLite's errors mean to an operator."""

from __future__ import annotations

import apsw

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import exhausted, exhausted_by_name

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (apsw.FullError, "the disk is full: free some space on it"),
    (apsw.ReadOnlyError, "the file or its directory cannot be written: check owner and mount"),
    (
        apsw.CantOpenError,
        "the file cannot be opened: check that its directory exists and its owner",
    ),
    (apsw.PermissionsError, "access to the file is denied: check its owner"),
    (apsw.CorruptError, "the file is damaged: restore it from a backup"),
    (apsw.NotADBError, "the file is no database: restore it from a backup"),
    (apsw.BusyError, "another program has locked the file: end that program"),
    (apsw.LockedError, "another program has locked the file: end that program"),
    (apsw.IOError, "the disk cannot be read or written: look at the kernel's log"),
    (apsw.SchemaChangeError, "another program has changed the tables: restore a backup"),
)

NEEDS_REOPENING = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.CantOpenError)
"""After these a connection is not to be trusted any more."""

PROGRAM_FAULTS = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.RangeError)
"""These say that one write is wrong, not that the store is."""

CLOSED = "the store is closed"


def explain(error: Exception) -> str:
    """Return in words why the store cannot be used."""
    if isinstance(error, StoreUnavailable):
        return error.message
    unsaid = isinstance(error, apsw.CantOpenError | apsw.IOError)
    lacking = exhausted_by_name(error) if unsaid else exhausted(error)
    if lacking is not None:
        return lacking.lack
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # clients are told, too, and the path is not for them
    return f"{type(error).__name__}: {error}"


def unavailable(error: Exception) -> StoreUnavailable:
    """Return the error of the port that ``error`` of SQLite amounts to."""
    return StoreUnavailable(explain(error))
