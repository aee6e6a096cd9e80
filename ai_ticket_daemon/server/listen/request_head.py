"""The head of a request of HTTP/1: its first line and header lines, made sense of or refused.

Nothing is read leniently. A line ends with CR LF, a field stands on one line, and what another
server may read in another way is refused: whoever hides a request in a request lives on that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ai_ticket_daemon.server.listen.framing import (
    MAX_HEADER_BYTES,
    check_framing,
    check_size,
    malformed,
    too_long,
    unknown_coding,
)

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIRST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":[^\0\r\n\v\f]*\r\n)*")
_FIELD = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_FIRST_PRINTABLE = 0x21
_FIRST_LINE_BYTES = len(b"  HTTP/1.1")
_MAX_LENGTH = 2**63 - 1
_SPECIAL = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})


class Head(NamedTuple):
    """The head of a request.

    ``length`` is that of the body; None: it comes in chunks. ``keeps``: the client may ask for more
    on this connection. ``expects``: it sends the body once it is told to.
    """

    method: bytes
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None
    keeps: bool
    expects: bool


def end_of_head(received: bytes | bytearray, searched_bytes: int) -> int:
    """Return where the head at the start of ``received`` ends; 0 if it is not all there.

    ``searched_bytes`` are known not to hold the end.

    Raises:
        HeadRefused: it cannot become one, or is too long.
    """
    found = received.find(b"\r\n\r\n", max(0, searched_bytes - 3))
    if found >= 0:
        return found + 4
    if len(received) > MAX_HEADER_BYTES:
        raise too_long()
    if (received and received[0] < _FIRST_PRINTABLE and received != b"\r") or (
        _BARE_LINE_FEED.search(received, max(0, searched_bytes - 1))
    ):
        raise malformed()
    return 0


def read_head(raw: bytes) -> Head:
    """Return what a head says.

    Raises:
        HeadRefused: a line is malformed, or it can be read in two ways, or is too long.
    """
    line_end = raw.find(b"\r\n")
    first = _FIRST_LINE.fullmatch(raw, 0, line_end)
    if first is None or _FIELDS.fullmatch(raw, line_end + 2, len(raw) - 2) is None:
        raise malformed()
    method, target, version = first.groups()
    headers = [
        (name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(raw, line_end + 2)
    ]
    hosts, length, chunked = 0, b"", False
    keeps, expects = version != b"1.0" and method != b"CONNECT", False
    for name, value in headers:
        if name not in _SPECIAL:
            continue
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = _one_length(value, length)
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise unknown_coding()
            chunked = True
        elif name == b"connection":
            keeps = keeps and b"close" not in _words(value)
        else:
            expects = value.lower() == b"100-continue" and version != b"1.0"
    if hosts > 1 or (not hosts and version == b"1.1"):
        raise malformed()
    check_framing(version, headers)
    check_size(len(method) + len(target) + _FIRST_LINE_BYTES, headers)
    return Head(
        method,
        target,
        version.decode(),
        headers,
        None if chunked else int(length or 0),
        keeps,
        expects,
    )


def _one_length(value: bytes, before: bytes) -> bytes:
    """Return the length that a field gives, which may say the same one several times."""
    first, *others = (part.strip(b" \t") for part in value.split(b","))
    if _LENGTH.fullmatch(first) is None or int(first) > _MAX_LENGTH:
        raise malformed()
    if any(other != first for other in others) or (before and before != first):
        raise malformed()
    return first


def _words(value: bytes) -> list[bytes]:
    return [word.strip() for word in value.lower().split(b",")]
