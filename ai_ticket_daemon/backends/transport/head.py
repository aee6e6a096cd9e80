"""The head of an answer: its status line and header lines, made sense of or refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_HEAD_BYTES = 100 * 1024
MOST_FIELDS = 500
"""Header lines; no server has a tenth of them, and those of one name are joined."""
_HEAD_END = re.compile(rb"\n\r?\n")
# A carriage return ends no line by itself.
_FORBIDDEN = re.compile(rb"[\0\v\f]|\r(?!\n)")
_STATUS_LINE = re.compile(r"HTTP/([0-9]\.[0-9]) ([0-9]{3})(?: [^\n]*)?\n")
_FIELDS = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\n]*\n)*\n")
_FIELD = re.compile(r"([^:\n]+):[ \t]*([^\n]*)\n")
_CONTINUED = re.compile(r"\n[ \t]+")
_LENGTH = re.compile(r"[0-9]{1,20}")
_FIRST_PRINTABLE = 0x21
_LEAST_STATUS = 100
_SWITCHES = 101
_FIRST_FINAL = 200
_WITHOUT_BODY = frozenset({204, 304})


class NotHttp(Exception):
    """What came is not HTTP, or more of it than an answer may have."""


class Head(NamedTuple):
    """The head of a final answer.

    ``length`` is that of the body; None: it is ``chunked``, or ends with the connection.
    ``keeps``: the server will take another request on this connection. The names of ``headers``
    are in lower case; the values of one name are joined.
    """

    status: int
    headers: Mapping[str, str]
    keeps: bool
    chunked: bool
    length: int | None


def cut_head(received: bytes) -> tuple[bytes, bytes] | None:
    """Return the first head in ``received`` and what follows it; None if it is not all there.

    Raises:
        NotHttp: it cannot become a head, or is too long.
    """
    end = _HEAD_END.search(received)
    if end is not None:
        return received[: end.end()], received[end.end() :]
    if len(received) > MOST_HEAD_BYTES or (received and received[0] < _FIRST_PRINTABLE):
        raise NotHttp
    return None


def read_head(raw: bytes) -> Head | None:
    """Return what a head says; None for one that only announces another (1xx).

    Raises:
        NotHttp: a line is malformed, or the lines contradict each other.
    """
    text = _text_of(raw)
    first = _STATUS_LINE.match(text)
    if first is None:
        raise NotHttp
    version, status = first[1], int(first[2])
    headers = _read_fields(text, first.end())
    length, chunked = _read_framing(headers)
    if status < _FIRST_FINAL:
        # Nobody asked for another protocol.
        if status < _LEAST_STATUS or status == _SWITCHES:
            raise NotHttp
        return None
    if status in _WITHOUT_BODY:
        length, chunked = 0, False
    elif chunked:
        length = None
    return Head(status, headers, version >= "1.1" and not _closes(headers), chunked, length)


def check_trailer(raw: bytes) -> None:
    """Make sure that what follows the last chunk is header lines; what they say is not used.

    Raises:
        NotHttp: it is something else.
    """
    _read_framing(_read_fields(_text_of(raw), 0))


def is_sendable(value: bytes) -> bool:
    """Whether a header line may carry this value."""
    return value == value.strip() and b"\n" not in value and _FORBIDDEN.search(value) is None


def _text_of(raw: bytes) -> str:
    if _FORBIDDEN.search(raw):
        raise NotHttp
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n")


def _read_fields(text: str, at: int) -> dict[str, str]:
    """Return the header lines from ``at`` on."""
    if _FIELDS.fullmatch(text, at) is None:
        # A line may go on with the one before, as was once allowed.
        if text[at] in " \t":
            raise NotHttp
        text, at = _CONTINUED.sub(" ", text[at:-1]) + "\n", 0
        if _FIELDS.fullmatch(text) is None:
            raise NotHttp
    if text.count("\n", at) > MOST_FIELDS + 1:
        raise NotHttp
    headers: dict[str, str] = {}
    for raw_name, raw_value in _FIELD.findall(text, at):
        name, value = raw_name.lower(), raw_value.rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _read_framing(headers: Mapping[str, str]) -> tuple[int | None, bool]:
    """Return the length that the headers give, and whether they announce chunks."""
    length: int | None = None
    text = headers.get("content-length")
    if text is not None:
        first, *others = (value.strip(" \t") for value in text.split(","))
        if _LENGTH.fullmatch(first) is None or any(other != first for other in others):
            raise NotHttp
        length = int(first)
    coding = headers.get("transfer-encoding")
    if coding is not None and not (coding.isascii() and coding.lower() == "chunked"):
        raise NotHttp
    return length, coding is not None


def _closes(headers: Mapping[str, str]) -> bool:
    words = headers.get("connection", "").lower()
    return "close" in words and "close" in (word.strip(" \t") for word in words.split(","))
