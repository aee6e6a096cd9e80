"""The reader: a connection of its own for questions, so that they never wait for a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import apsw
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.store.sqlite.connection import Connection
from ai_ticket_daemon.store.sqlite.faults import CLOSED, NEEDS_REOPENING, unavailable
from ai_ticket_daemon.store.sqlite.schema import open_for_reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_SECONDS = 10.0
"""How long a question may take, at the most."""

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """Answers questions about the file ``path``, from the first one on until :meth:`aclose`.

    ``stale`` is set to have the file opened anew, because it may be another one now.

    A connection whose thread nobody ends would keep the process from ending, so opening and closing
    are not cut short.
    """

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        self._path = path
        self._vfs = vfs
        self._connection: Connection | None = None
        self._opening = trio.Lock()
        self._closed = False
        self.stale = False

    async def read(
        self,
        question: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return what ``question`` finds.

        Raises:
            StoreUnavailable: the file cannot be read, or the reader is closed.
        """
        try:
            with trio.fail_after(READ_SECONDS):
                connection = self._connection
                if connection is None or self.stale:
                    connection = await self._open()
                return await connection.run(question, *args, **kwargs)
        except (apsw.Error, OSError, MemoryError, RuntimeError, trio.TooSlowError) as error:
            if isinstance(error, RuntimeError) and exhausted(error) is None:
                raise
            if isinstance(error, NEEDS_REOPENING):
                self.stale = True
            raise unavailable(error) from error

    async def aclose(self) -> None:
        """Answer no more questions."""
        self._closed = True
        with trio.CancelScope(shield=True):
            async with self._opening:
                await self._close()

    async def _open(self) -> Connection:
        with trio.CancelScope(shield=True):
            async with self._opening:
                connection = await self._opened()
        return connection

    async def _opened(self) -> Connection:
        if self._closed:
            raise StoreUnavailable(CLOSED)
        if self.stale:
            self.stale = False
            await self._close()
        if self._connection is None:
            connection = await Connection.open(self._path, vfs=self._vfs)
            try:
                await connection.run(open_for_reading)
            except BaseException:
                await connection.aclose()
                raise
            self._connection = connection
        return self._connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
