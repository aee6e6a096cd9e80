"""The bytes of an answer over HTTP/1: its head, and the pieces of its body."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING

from ai_ticket_daemon.server.answers import error_object, to_json
from ai_ticket_daemon.server.headers import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_ticket_daemon.server.listen.framing import HeadRefused

_JOINED_BYTES = 65_536
"""A body up to this length is sent together with its head; a longer one is not worth a copy."""


class AnswerBytes:
    """Writes the answer to one request.

    Args:
        method: that of the request.
        version: of HTTP, as the request has it.
    """

    def __init__(self, method: bytes = b"", version: str = "1.1") -> None:
        self._has_body = method != b"HEAD"
        self._takes_chunks = version != "1.0"
        self._in_chunks = False
        self._unsent_head = b""
        self.has_begun = False

    def begin(self, status: int, headers: Mapping[str, str], *, closes: bool) -> None:
        """Write the head; it goes out with the first piece."""
        self.has_begun = True
        # Over HTTP/1.0 the end of the connection is that of a body whose length is not known.
        self._in_chunks = self._takes_chunks and "content-length" not in headers
        if self._in_chunks:
            headers = {**headers, "transfer-encoding": "chunked"}
        self._unsent_head = _head_bytes(status, headers, closes=closes)

    def pieces(self, data: bytes, *, is_last: bool) -> tuple[bytes, ...]:
        """Return what to send for a piece of the body."""
        head, self._unsent_head = self._unsent_head, b""
        if not self._has_body:
            data = b""
        elif self._in_chunks:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if is_last:
                data += b"0\r\n\r\n"
        if len(data) > _JOINED_BYTES:
            return (head, data) if head else (data,)
        return (head + data,) if head or data else ()


def refusal_bytes(error: HeadRefused) -> bytes:
    """Return the whole answer to what cannot be served; nothing follows it."""
    body = to_json(error_object(error, event_id=None, trace_id=None))
    headers = {"content-type": JSON_TYPE, "content-length": str(len(body))}
    return _head_bytes(error.http_status, headers, closes=True) + body


def _head_bytes(status: int, headers: Mapping[str, str], *, closes: bool) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    close = "connection: close\r\n" if closes else ""
    date = _date(int(time.time()))
    return f"HTTP/1.1 {status} \r\n{lines}date: {date}\r\n{close}\r\n".encode("latin-1")


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
