"""One answer of a server: its head was read, its body is read piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.body import body_of
from ai_ticket_daemon.backends.transport.head import MOST_HEAD_BYTES
from ai_ticket_daemon.backends.transport.translate import FOREIGN, Stage, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.transport.connection import Connection
    from ai_ticket_daemon.backends.transport.head import Head

_FRAMING_BYTES = 2 * MOST_HEAD_BYTES
_FRAMING_TIMES = 16
"""How much longer than its text the framing of a body may be, besides: a chunk of one byte, with
nothing but its size, takes five bytes more."""
_MOST_LOOKS = 8
"""So many pieces may wait behind what was read of an answer; TLS gives one record at a time."""


class Answer:
    """An answer whose head was read; ``read_some`` gives its body. To be closed in any case.

    Args:
        head: what was read.
        received: what came behind the head.
        connection: brings the rest.
        give_back: takes the connection once the answer is over, if the server keeps it.
    """

    def __init__(
        self,
        head: Head,
        received: bytes,
        connection: Connection,
        give_back: Callable[[Connection], None],
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self._keeps = head.keeps
        self._body = body_of(head)
        self._received = received
        self._connection = connection
        self._give_back = give_back
        self._bytes = 0
        self._received_bytes = 0
        self._closed = False

    async def read_some(self, max_bytes: int) -> bytes:
        """Return the next piece of the body; empty at its end.

        Raises:
            AttemptFailed: the connection broke, or the body exceeds ``max_bytes`` altogether, or is
                little but the framing of its chunks.
        """
        body = self._body
        piece = b""
        while not piece and not body.ended:
            if body.malformed:
                raise AttemptFailed.seen(Seen.CUT)
            received, self._received = self._received, b""
            if not received:
                try:
                    received = await self._connection.receive()
                except FOREIGN as error:
                    raise translate(error, Stage.ANSWERING) from error
            if received:
                piece = body.feed(received)
                self._count(received, piece, max_bytes)
            else:
                body.close()
        return piece

    async def read_all(self, max_bytes: int) -> bytes:
        """Return the whole body; raises as :meth:`read_some` does."""
        pieces: list[bytes] = []
        while piece := await self.read_some(max_bytes):
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """Give the connection back or close it, without waiting for the server."""
        if self._closed:
            return
        self._closed = True
        if self._keeps and await self._is_over():
            self._give_back(self._connection)
        else:
            self._connection.close()

    def _count(self, received: bytes, piece: bytes, max_bytes: int) -> None:
        self._received_bytes += len(received)
        self._bytes += len(piece)
        framing_bytes = self._received_bytes - self._bytes
        if self._bytes > max_bytes or framing_bytes > _FRAMING_BYTES + _FRAMING_TIMES * self._bytes:
            raise AttemptFailed.seen(Seen.TOO_LARGE)

    async def _is_over(self) -> bool:
        """Whether the body ended as it said, and nothing came behind it that nobody asked for.

        The next request would take that for its answer: one ticket would be given the text of
        another.
        """
        body = self._body
        if self._received:
            body.feed(self._received)
        # Whoever reads a stream needs no more than its last event; the end of the body follows it.
        if not body.ended or self._connection.hides:
            for _ in range(_MOST_LOOKS):
                received = await self._connection.receive_now()
                if not received:
                    break
                body.feed(received)
            else:
                return False
        return body.ended and not (body.excess or body.malformed)
