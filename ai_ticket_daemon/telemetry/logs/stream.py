"""Lines for a stream that somebody else reads; who reads too slowly costs lines, never time.

A pipe whose reader stands still takes some 64 KiB and then blocks whoever writes. It cannot be made
non-blocking here: that would hold for all processes that share it. So a line goes out at once only
where the kernel says that it will not block, and else from a thread.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, TextIO

from ai_ticket_daemon.telemetry.bounded_sender import BoundedSender

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
        self._descriptor = _descriptor_of(stream)
        self._poll = select.poll()
        if self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLOUT)
        self._sender = BoundedSender[bytes](
            "log",
            lambda lines: self._send(lines[0]),
            dropped=dropped,
            bound=queue_bytes,
            weigh=len,
            send_now=self._send_now,
        )

    @property
    def is_idle(self) -> bool:
        """Whether everything so far is out."""
        return self._sender.is_idle

    def write(self, text: str) -> None:
        """Write one line now or soon; it is dropped if too much waits already."""
        if self._descriptor is None:
            self._write_plainly(text)
            return
        try:
            self._sender.put(text.encode("utf-8", "backslashreplace") + b"\n")
        except MemoryError:  # what is logged is not worth the failure of who logs it
            self._dropped(1)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Let the last lines out, for ``timeout_seconds`` at the most."""
        self._sender.close(timeout_seconds)

    def _send_now(self, line: bytes) -> bool:
        """Write the line if the kernel takes it at once: a pipe with room takes so much, whole."""
        if len(line) > select.PIPE_BUF or not self._poll.poll(0):
            return False
        if not self._write(line):
            self._dropped(1)
        return True

    def _send(self, line: bytes) -> bool:
        """Write the line; it is done with then, also where nobody reads it any more."""
        if not self._write(line) and not self._sender.is_abandoned:
            self._dropped(1)
        return True

    def _write(self, line: bytes) -> bool:
        """Write the line; return False if whoever read it has gone."""
        assert self._descriptor is not None  # noqa: S101 - asked before
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            return False
        return True

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
