"""Events from lines of JSON, a window at a time; what is wrong with one line is that line's."""

from __future__ import annotations

import json
import os
import select
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WINDOW_EVENTS = 200
WINDOW_BYTES = 1024 * 1024
MAX_LINE_BYTES = 2 * 1024 * 1024
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """One event; ``number`` counts from 1, ``size`` are the bytes it took in the file."""

    number: int
    size: int
    event: bytes


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no event, and why."""

    number: int
    size: int
    reason: str


@dataclass(slots=True)
class Window:
    """Some lines, in their order, to be sent at once."""

    lines: list[Line] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


def windows(file: IO[bytes], wishes: Mapping[str, Any]) -> Iterator[Window]:
    """Yield the events of ``file`` with ``wishes`` added to each; not more in memory than a window.

    A window is yielded when it is full, and when nothing more is there yet, so that what comes
    slowly through a pipe does not wait for what follows.
    """
    reader = _Reader(file.fileno())
    window, size = Window(), 0
    for number, (raw, length) in enumerate(reader, start=1):
        if raw.strip() or length > MAX_LINE_BYTES:
            line = _read(number, raw, length, wishes)
            if isinstance(line, BadLine):
                window.bad.append(line)
            else:
                window.lines.append(line)
                size += len(line.event)
        count = len(window.lines) + len(window.bad)
        if count >= WINDOW_EVENTS or size >= WINDOW_BYTES or (count and not reader.has_more):
            yield window
            window, size = Window(), 0
    if window.lines or window.bad:
        yield window


class _Reader:
    """Reads lines of a descriptor; yields each with its length, and nothing of one too long."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._ended = False

    @property
    def has_more(self) -> bool:
        """Whether something more, or the end, can be had without waiting."""
        return (
            b"\n" in self._buffer
            or self._ended
            or bool(select.select([self._descriptor], [], [], 0)[0])
        )

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        dropped = 0
        while True:
            end = self._buffer.find(b"\n") + 1
            if not end and not self._ended:
                if len(self._buffer) > MAX_LINE_BYTES:
                    dropped += len(self._buffer)
                    self._buffer.clear()
                data = os.read(self._descriptor, _READ_BYTES)
                self._buffer += data
                self._ended = not data
                continue
            raw = bytes(self._buffer[: end or None])
            if not raw and not dropped:
                return
            del self._buffer[: len(raw)]
            length = dropped + len(raw)
            yield (b"" if length > MAX_LINE_BYTES else raw), length
            dropped = 0


def _read(number: int, raw: bytes, length: int, wishes: Mapping[str, Any]) -> Line | BadLine:
    if length > MAX_LINE_BYTES:
        return BadLine(number, length, f"longer than {MAX_LINE_BYTES} bytes")
    try:
        event = json.loads(raw)
        if not isinstance(event, dict):
            return BadLine(number, length, "no JSON object")
        return Line(number, length, json.dumps({**event, **wishes}).encode())
    except RecursionError:
        return BadLine(number, length, "no JSON: it nests too deep")
    except ValueError as error:
        return BadLine(number, length, f"no JSON: {error}")
