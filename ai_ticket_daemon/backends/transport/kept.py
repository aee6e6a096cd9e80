"""Connections that are kept for the next request, as long as their server keeps them, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.connection import Connection

# llama.cpp closes an idle connection after 5 s; a request sent just then would be lost.
IDLE_SECONDS = 3.0
MOST_KEPT = 16


class KeptConnections:
    """The idle connections to one server.

    Args:
        most: as many are kept; with 0, each connection serves one request.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: list[tuple[float, Connection]] = []

    def take(self) -> Connection | None:
        """Return the one that was in use last, and is as its answer left it; None if there is none.

        Whatever came meanwhile is the end, or was not asked for: that connection is closed.
        """
        self._close_idle()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_silent():
                return connection
            connection.close()
        return None

    def give(self, connection: Connection) -> None:
        """Keep a connection whose answer is over, or close it."""
        self._close_idle()
        self._idle.append((trio.current_time() + IDLE_SECONDS, connection))
        if len(self._idle) > self._most:
            self._close_first()

    def close(self) -> None:
        """Close all that are idle, and from now on each whose answer is over."""
        self._most = 0
        while self._idle:
            self._close_first()

    def _close_idle(self) -> None:
        now = trio.current_time()
        while self._idle and self._idle[0][0] < now:
            self._close_first()

    def _close_first(self) -> None:
        _, connection = self._idle.pop(0)
        connection.close()
