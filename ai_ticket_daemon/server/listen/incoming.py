"""The bytes that come over one connection of HTTP/1, taken apart into heads and bodies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ai_ticket_daemon.server.listen.chunks import ChunkedBody
from ai_ticket_daemon.server.listen.request_head import end_of_head, read_head

if TYPE_CHECKING:
    from ai_ticket_daemon.server.listen.request_head import Head

_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")
"""They are skipped before a request (RFC 9112 section 2.2)."""
_LINE_ENDS = (b"\r", b"\n")


class Incoming:
    """What has come and is not served yet. Does no I/O.

    ``received`` is what has come of heads, or behind the body that is being read.
    """

    def __init__(self) -> None:
        self.received = b""
        self._searched_bytes = 0
        self._chunks: ChunkedBody | None = None
        self._left_bytes = 0

    @property
    def awaits_body(self) -> bool:
        """Whether more of the body of the present request has to come."""
        return self._left_bytes > 0 or self._chunks is not None

    def next_head(self) -> Head | None:
        """Take the next head; None if it is not all there. Its body is next.

        Raises:
            HeadRefused: it cannot be served.
        """
        received = self.received
        if received[:1] in _LINE_ENDS and (empty := _EMPTY_LINES.match(received)):
            received = self.received = received[empty.end() :]
            self._searched_bytes = 0
        end = end_of_head(received, self._searched_bytes) if received else 0
        if not end:
            self._searched_bytes = len(received)
            return None
        self.received, self._searched_bytes = received[end:], 0
        head = read_head(received[:end])
        if head.length is None:
            self._chunks = ChunkedBody()
        else:
            self._left_bytes = head.length
        return head

    def take_body(self, data: bytes) -> bytes:
        """Return what of ``data`` belongs to the body; what came behind it is kept.

        Raises:
            HeadRefused: this is no body.
        """
        if self._chunks is None:
            data, self.received = data[: self._left_bytes], data[self._left_bytes :]
            self._left_bytes -= len(data)
            return data
        chunks, self._chunks, self.received = self._chunks, None, b""
        data = chunks.feed(data)
        if chunks.ended:
            self.received = chunks.rest
        else:
            self._chunks = chunks
        return data
