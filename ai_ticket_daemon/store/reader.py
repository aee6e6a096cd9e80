"""The reader: a connection of its own for questions, so that they never wait for a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import apsw
import trio

from ai_ticket_daemon.store.connection import Connection
from ai_ticket_daemon.store.faults import NEEDS_REOPENING, unavailable
from ai_ticket_daemon.store.schema import open_for_reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_SECONDS = 10.0
"""How long a question may take, at the most."""

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """Answers questions about the file ``path``; opened when it is first asked.

    ``stale`` is set to have the file opened anew, because it may be another one now.
    """

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        self._path = path
        self._vfs = vfs
        self._connection: Connection | None = None
        self._opening = trio.Lock()
        self.stale = False

    async def read(
        self,
        question: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return what ``question`` finds.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        try:
            with trio.fail_after(READ_SECONDS):
                connection = self._connection
                if connection is None or self.stale:
                    connection = await self._open()
                return await connection.run(question, *args, **kwargs)
        except (apsw.Error, OSError, trio.TooSlowError) as error:
            if isinstance(error, NEEDS_REOPENING):
                self.stale = True
            raise unavailable(error) from error

    async def aclose(self) -> None:
        """Close the connection; the next question opens it anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _open(self) -> Connection:
        async with self._opening:
            if self.stale:
                self.stale = False
                await self.aclose()
            if self._connection is None:
                connection = await Connection.open(self._path, vfs=self._vfs)
                await connection.run(open_for_reading)
                self._connection = connection
            return self._connection
