"""Lines for a stream that somebody else reads; who reads too slowly costs lines, never time.

A pipe whose reader stands still takes some 64 KiB and then blocks whoever writes. It cannot be made
non-blocking here: that would hold for all processes that share it. So a line goes out at once only
where the kernel says that it will not block, and else from a thread.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE_BYTES = 2**20
"""What may wait for the reader, some 4000 lines; what comes on top is dropped and counted."""
CLOSE_SECONDS = 1.0
"""How long the last lines may take."""


class StreamWriter:
    """Writes lines in order to a stream; never blocks.

    Args:
        stream: where to; one that is no file of the system is written to as it is.
        dropped: told how many lines were lost; called from whichever thread notices.
        queue_bytes: how much may wait.
    """

    def __init__(
        self, stream: TextIO, *, dropped: Callable[[int], None], queue_bytes: int = QUEUE_BYTES
    ) -> None:
        self._stream = stream
        self._dropped = dropped
        self._queue_bytes = queue_bytes
        self._descriptor = _descriptor_of(stream)
        self._poll = select.poll()
        if self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLOUT)
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._more = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def is_idle(self) -> bool:
        """Whether everything so far is out."""
        return not self._lines

    def write(self, text: str) -> None:
        """Write one line now or soon; it is dropped if too much waits already."""
        if self._descriptor is None:
            self._write_plainly(text)
            return
        try:
            self._write(text.encode("utf-8", "backslashreplace") + b"\n")
        except MemoryError:  # what is logged is not worth the failure of who logs it
            self._dropped(1)

    def _write(self, line: bytes) -> None:
        with self._more:
            if self._lines and not self._writes:
                self._send_what_fits()
            if not self._lines and self._takes(line):
                self._send(line)
            elif self._closing or self._waiting_bytes + len(line) > self._queue_bytes:
                self._dropped(1)
            else:
                self._lines.append(line)
                self._waiting_bytes += len(line)
                self._more.notify()
                if not self._writes:
                    self._thread = self._start()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Let the last lines out, for ``timeout_seconds`` at the most."""
        with self._more:
            self._closing = True
            self._more.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        with self._more:
            if not self._writes:
                self._send_what_fits()

    def _takes(self, line: bytes) -> bool:
        """Whether the kernel takes the line at once: a pipe with room takes so much, whole."""
        return len(line) <= select.PIPE_BUF and bool(self._poll.poll(0))

    @property
    def _writes(self) -> bool:
        """Whether there is a thread that writes what waits."""
        return self._thread is not None and self._thread.is_alive()

    def _start(self) -> threading.Thread | None:
        """Start what writes the lines that wait; None while the host has no thread for it."""
        try:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            thread.start()
        except (RuntimeError, MemoryError):  # tried again with the next line
            return None
        return thread

    def _send_what_fits(self) -> None:
        """Without a thread: send those lines that the kernel takes at once."""
        while self._lines and self._takes(self._lines[0]):
            line = self._lines.popleft()
            self._waiting_bytes -= len(line)
            self._send(line)

    def _run(self) -> None:
        with suppress(MemoryError):  # started again with the next line
            self._send_all()

    def _send_all(self) -> None:
        while True:
            with self._more:
                while not self._lines:
                    if self._closing:
                        return
                    self._more.wait()
                line = self._lines[0]
            self._send(line)
            with self._more:
                self._lines.popleft()
                self._waiting_bytes -= len(line)

    def _send(self, line: bytes) -> None:
        assert self._descriptor is not None  # noqa: S101 - asked before
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # whoever read it has gone
            self._dropped(1)

    def _write_plainly(self, text: str) -> None:
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError, MemoryError):  # closed, or no room for it
            self._dropped(1)


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a stream that is no file
        return None
