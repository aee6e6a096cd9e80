"""A SQLite connection with a thread of its own, and three ways to read rows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import apsw
import apsw.aio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """An open file. What is to be done with it is handed over as a whole, by :meth:`run`."""

    def __init__(self, connection: apsw.AsyncConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, path: Path, *, vfs: str | None) -> Connection:
        """Open the file ``path``, which has to exist.

        Raises:
            apsw.Error: SQLite cannot open it.
        """
        return cls(
            await apsw.Connection.as_async(
                str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOMUTEX, vfs=vfs
            )
        )

    async def run(
        self, call: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call ``call`` with the connection, in its thread, and return what it returns.

        In there the connection is an ordinary one: nothing of it is awaited.

        Raises:
            apsw.Error: and whatever else the call raises.
        """
        connection = cast("apsw.Connection", self._connection)
        return cast("T", await self._connection.async_run(call, connection, *args, **kwargs))

    async def aclose(self) -> None:
        """Close the file and end the thread."""
        await self._connection.aclose()


def rows(connection: apsw.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return all rows of ``query``."""
    return connection.execute(query, cast("Any", values)).fetchall()


def row(connection: apsw.Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    """Return the first row of ``query``; None if there is none."""
    return connection.execute(query, cast("Any", values)).fetchone()


def value(connection: apsw.Connection, query: str, *values: object) -> Any:
    """Return the one value that ``query`` yields; None if it yields none."""
    return connection.execute(query, cast("Any", values)).get
