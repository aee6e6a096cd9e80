"""The body of an answer: which of the bytes behind the head belong to it, and where it ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from ai_ticket_daemon.backends.transport.head import (
    MOST_HEAD_BYTES,
    NotHttp,
    check_trailer,
    cut_head,
)

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.head import Head

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\n]*)?[ \t]*")
_LINE_END = b"\r\n"


class Body(Protocol):
    """A body as it comes in.

    ``ended``: all of it was fed. ``excess``: bytes came behind its end. ``malformed``: what came
    last is no body; what ``feed`` returned before is.
    """

    ended: bool
    excess: bool
    malformed: bool

    def feed(self, received: bytes) -> bytes:
        """Take in what was received and return what of it belongs to the text of the body."""

    def close(self) -> None:
        """Take in the end of the connection."""


def body_of(head: Head) -> Body:
    """Return the body that a head announces."""
    if head.chunked:
        return ChunkedBody()
    return OpenBody() if head.length is None else SizedBody(head.length)


class SizedBody:
    """A body whose length is known."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = not length
        self.excess = False
        self.malformed = False

    def feed(self, received: bytes) -> bytes:
        """See :class:`Body`."""
        if len(received) > self._left:
            self.excess = True
            received = received[: self._left]
        self._left -= len(received)
        self.ended = not self._left
        return received

    def close(self) -> None:
        """See :class:`Body`: a part of it is missing."""
        self.malformed = not self.ended


class OpenBody:
    """A body that ends with its connection."""

    def __init__(self) -> None:
        self.ended = False
        self.excess = False
        self.malformed = False

    def feed(self, received: bytes) -> bytes:
        """See :class:`Body`."""
        return received

    def close(self) -> None:
        """See :class:`Body`."""
        self.ended = True
        self.excess = True  # Nothing more can come on this connection.


class ChunkedBody:
    """A body in chunks, each with its size before it."""

    def __init__(self) -> None:
        self.ended = False
        self.excess = False
        self.malformed = False
        self._rest = b""
        self._left = 0
        self._after_chunk = False
        self._after_last = False

    def feed(self, received: bytes) -> bytes:
        """See :class:`Body`."""
        parts: list[bytes] = []
        try:
            self._rest = self._take(self._rest + received if self._rest else received, parts)
        except NotHttp:
            self.malformed = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """See :class:`Body`: the last chunk is missing."""
        self.malformed = not self.ended

    def _take(self, data: bytes, parts: list[bytes]) -> bytes:
        """Take what is whole; return what has to wait for more."""
        at = 0
        while not self._after_last:
            if self._left:
                part = data[at : at + self._left]
                if not part:
                    return b""
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._after_chunk = not self._left
                continue
            if self._after_chunk:
                end = data[at : at + 2]
                if end != _LINE_END:
                    if not _LINE_END.startswith(end):
                        raise NotHttp
                    return end
                at += 2
                self._after_chunk = False
            line_end = data.find(_LINE_END, at)
            if line_end < 0:
                return _bounded(data[at:])
            size = _CHUNK_SIZE.fullmatch(data, at, line_end)
            if size is None:
                raise NotHttp
            at, length = line_end + 2, int(size[1], 16)
            end_at = at + length
            if length and data[end_at : end_at + 2] == _LINE_END:  # As a rule all of it is there.
                parts.append(data[at:end_at])
                at = end_at + 2
            else:
                self._left, self._after_last = length, not length
        return self._take_trailer(data[at:])

    def _take_trailer(self, data: bytes) -> bytes:
        if self.ended:
            rest = data
        elif data.startswith((b"\n", _LINE_END)):
            rest = data[data.index(b"\n") + 1 :]
        else:
            cut = None if data in (b"", b"\r") else cut_head(data)
            if cut is None:
                return data
            trailer, rest = cut
            check_trailer(trailer)
        self.ended = True
        self.excess = self.excess or bool(rest)
        return b""


def _bounded(line: bytes) -> bytes:
    if len(line) > MOST_HEAD_BYTES:
        raise NotHttp
    return line
