"""Server-sent events, read as the bytes come in, however they are cut."""

from __future__ import annotations

import re
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_DONE = b"[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_MARK_BYTES = 64
"""By so many bytes a line is known to be the mark of the end, or not to be."""


class EventTooLong(Exception):
    """An event exceeds what any event of a generation needs."""


class Event(NamedTuple):
    """The data of an event, and whether the server calls it an error."""

    data: bytes
    is_error: bool = False


class EventStream:
    """Gives the events of a stream.

    The mark ``[DONE]`` ends the stream, with or without a line end behind it: KoboldCPP sends none
    and keeps the connection open for a while. Lines end in LF, CRLF or CR; a byte order mark at the
    beginning, comments and fields that do not matter are passed over, as are events without data.

    Args:
        longest: bytes of one event, at the most.
    """

    def __init__(self, longest: int) -> None:
        self.done = False
        self._longest = longest
        self._rest = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_error = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take in bytes and return the events that are now complete.

        Raises:
            EventTooLong: there is one of more than ``longest`` bytes.
        """
        if self.done:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        *lines, last = _LINE_END.split(chunk)
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        events: list[Event] = []
        for line in lines:
            if self._take(line, events):
                return events
        self._rest += last
        if len(self._rest) > self._longest:
            raise EventTooLong
        if last and len(self._rest) < _MARK_BYTES and _is_done(bytes(self._rest)):
            self._finish(events)
        return events

    def close(self) -> list[Event]:
        """Take in the end of the connection: what was not ended by a blank line ends here."""
        events: list[Event] = []
        if not self.done:
            if self._rest:
                self._take(bytes(self._rest), events)
            self._finish(events)
        return events

    def _take(self, line: bytes, events: list[Event]) -> bool:
        """Take in a line; return whether it ends the stream."""
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
        elif _is_done(line):
            self._finish(events)
        else:
            name, _, value = line.partition(b":")
            self._take_field(name, value.removeprefix(b" "))
        return self.done

    def _take_field(self, name: bytes, value: bytes) -> None:
        if name == b"event":
            self._is_error = value == b"error"
        elif name in (b"data", b"error"):  # Some servers have a field for errors.
            self._is_error = self._is_error or name == b"error"
            self._data.append(value)
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._longest:
                raise EventTooLong

    def _dispatch(self, events: list[Event]) -> None:
        data = b"\n".join(self._data)
        if data.strip():
            events.append(Event(data, self._is_error))
        self._data.clear()
        self._data_bytes = 0
        self._is_error = False

    def _finish(self, events: list[Event]) -> None:
        self._dispatch(events)
        self.done = True
        self._rest.clear()


def _is_done(line: bytes) -> bool:
    # By its beginning, so that it does not matter what of the line has come yet; no JSON value
    # begins like this.
    return line.startswith(b"data:") and line[5:].lstrip(b" ").startswith(_DONE)
