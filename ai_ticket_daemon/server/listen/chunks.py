"""The body of a request that comes in chunks, each with its size before it."""

from __future__ import annotations

import re

from ai_ticket_daemon.server.listen.framing import MAX_HEADER_BYTES, malformed

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\0\r\n\v\f]*)?[ \t]*\r\n")
_FIELD_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\0\r\n\v\f]*\r\n")
_LINE_END = b"\r\n"
_SIZE_BYTES = len("fffffffffffffffffff")


class ChunkedBody:
    """Takes a body apart. What stands beside its bytes is not used, and bounded as headers are.

    ``ended``: all of it came; ``rest`` is what came behind it.
    """

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._left_bytes = 0
        self._at_chunk_end = False
        self._in_trailer = False
        self._beside_bytes = 0

    def feed(self, received: bytes) -> bytes:
        """Take in what was received and return what of it belongs to the text of the body.

        Raises:
            HeadRefused: this is no body.
        """
        data = self.rest + received
        parts: list[bytes] = []
        at = 0
        while not self.ended:
            if self._left_bytes:
                part = data[at : at + self._left_bytes]
                if not part:
                    break
                parts.append(part)
                at += len(part)
                self._left_bytes -= len(part)
                self._at_chunk_end = not self._left_bytes
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._check_beside(len(data) - at)
                if self._at_chunk_end and data[at:] not in (b"", b"\r"):
                    raise malformed()
                break
            self._take_line(data[at : end + 1])
            at = end + 1
        self.rest = data[at:]
        return b"".join(parts)

    def _take_line(self, line: bytes) -> None:
        if self._at_chunk_end:
            self._at_chunk_end = False
            if line != _LINE_END:
                raise malformed()
        elif self._in_trailer:
            self._beside_bytes += len(line)
            self._check_beside(0)
            self.ended = line == _LINE_END
            if not self.ended and _FIELD_LINE.fullmatch(line) is None:
                raise malformed()
        else:
            size = _SIZE_LINE.fullmatch(line)
            if size is None:
                raise malformed()
            self._beside_bytes += max(0, len(line) - _SIZE_BYTES)
            self._check_beside(0)
            self._left_bytes = int(size[1], 16)
            self._in_trailer = not self._left_bytes

    def _check_beside(self, more_bytes: int) -> None:
        if self._beside_bytes + more_bytes > MAX_HEADER_BYTES:
            raise malformed()
