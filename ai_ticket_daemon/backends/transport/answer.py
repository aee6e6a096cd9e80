"""One answer of a server: its head was read, its body is read piece by piece."""

from __future__ import annotations

from operator import attrgetter

import httpx
import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.translate import FOREIGN, translate

# What h11 knows of the connection behind a stream of httpx; neither httpx nor httpcore tells.
_http_state = attrgetter("_httpcore_stream._stream._connection._h11_state")
_LONGEST_TURN_SECONDS = 0.01


class Answer:
    """An answer whose head was read; ``read_some`` gives its body. To be closed in any case."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError(f"the transport gave a {type(stream).__name__}")
        self._stream = stream
        self._chunks = aiter(stream)
        self._ended = False
        self._bytes = 0
        self._yielded_at = trio.current_time()

    async def read_some(self, max_bytes: int) -> bytes:
        """Return the next piece of the body; empty at its end.

        Raises:
            AttemptFailed: the connection broke, or the body exceeds ``max_bytes`` altogether.
        """
        # What lies there already is given without waiting: a server that sends it in crumbs must
        # not hold up everybody else.
        if trio.current_time() - self._yielded_at > _LONGEST_TURN_SECONDS:
            await trio.lowlevel.checkpoint()
            self._yielded_at = trio.current_time()
        try:
            chunk = await anext(self._chunks, b"")
        except FOREIGN as error:
            self._ended = True
            raise translate(error, answering=True) from error
        if not chunk:
            self._ended = True
        self._bytes += len(chunk)
        if self._bytes > max_bytes:
            raise AttemptFailed.seen(Seen.TOO_LARGE)
        return chunk

    async def read_all(self, max_bytes: int) -> bytes:
        """Return the whole body; raises as :meth:`read_some` does."""
        body = bytearray()
        while chunk := await self.read_some(max_bytes):
            body += chunk
        return bytes(body)

    async def aclose(self) -> None:
        """Give the connection back or close it."""
        # Also after the last byte: only this takes the connection out of httpcore's pool.
        with trio.CancelScope(shield=True):
            _give_up_if_more_came(self._stream)
            await self._stream.aclose()
            if self._ended:
                return
            # The generators inside httpx end only when they are run to their end.
            try:
                while await anext(self._chunks, b""):
                    pass
            except FOREIGN:
                self._ended = True


def _give_up_if_more_came(stream: httpx.AsyncByteStream) -> None:
    """Have the connection closed if bytes lie behind the end of the answer.

    Nobody asked for them, and httpcore would read them as the answer to the next request: one
    ticket would be given the text of another.
    """
    connection = _http_state(stream)
    behind, _ = connection.trailing_data
    if behind:
        connection.send_failed()
