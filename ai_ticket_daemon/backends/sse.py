"""Server-sent events, read as the bytes come in, however they are cut."""

from __future__ import annotations

MAX_LINE_BYTES = 1024 * 1024
_DONE = b"[DONE]"


class LineTooLong(Exception):
    """A line exceeds what any event of a generation needs."""


class EventStream:
    """Gives the data of each event of a stream.

    The mark ``[DONE]`` ends the stream, with or without a line end behind it: KoboldCPP sends none
    and keeps the connection open for a while. Lines end in LF or CRLF; fields other than ``data``
    are passed over, as are comments.
    """

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in bytes and return the data of the events that are now complete.

        Raises:
            LineTooLong: there is a line of more than ``MAX_LINE_BYTES``.
        """
        if self.done:
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            if self._take(line, events):
                return events
        if len(self._rest) > MAX_LINE_BYTES:
            raise LineTooLong
        if _is_done(self._rest):
            self._finish(events)
        return events

    def close(self) -> list[bytes]:
        """Take in the end of the connection: what was not ended by a blank line ends here."""
        events: list[bytes] = []
        if not self.done:
            if self._rest:
                self._take(self._rest, events)
            self._finish(events)
        return events

    def _take(self, line: bytes, events: list[bytes]) -> bool:
        """Take in a line; return whether it ends the stream."""
        if len(line) > MAX_LINE_BYTES:
            raise LineTooLong
        line = line.removesuffix(b"\r")
        if not line:
            self._dispatch(events)
        elif _is_done(line):
            self._finish(events)
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        return self.done

    def _dispatch(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
            self._data.clear()

    def _finish(self, events: list[bytes]) -> None:
        self._dispatch(events)
        self.done = True
        self._rest = b""


def _is_done(line: bytes) -> bool:
    # By its beginning, so that it does not matter what of the line has come yet; no JSON value
    # begins like this.
    return line.startswith(b"data:") and line[5:].lstrip(b" ").startswith(_DONE)
