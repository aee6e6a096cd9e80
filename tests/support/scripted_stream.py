"""A connection without a socket: what comes over it follows from what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.backends.transport.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable


class ScriptedStream(trio.abc.Stream):
    """Answers once, in pieces of ``piece`` bytes, and then ends.

    Args:
        answer: from what was sent to what comes back.
        piece: bytes of each piece.
    """

    def __init__(self, answer: Callable[[bytes], bytes], piece: int = 65_536) -> None:
        self._answer = answer
        self._piece = piece
        self._sent = b""
        self._coming: bytes | None = None
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        """There is always room."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.receive_now(max_bytes or self._piece)

    def receive_now(self, max_bytes: int) -> bytes:
        if self._coming is None:
            self._coming = self._answer(self._sent)
        size = min(max_bytes, self._piece)
        piece, self._coming = self._coming[:size], self._coming[size:]
        return piece

    def is_silent(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.close()


def connection_over(stream: Any) -> Connection:
    """Return a connection that needs no TCP."""
    return Connection(stream, stream)
