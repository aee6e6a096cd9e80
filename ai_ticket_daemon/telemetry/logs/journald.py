"""journald's native protocol; a journald that stalls is waited for by a thread, by nobody else.

One datagram per line; a line too big for a datagram goes as a sealed file in memory. See systemd's
"Native Journal Protocol"
(https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
import time
from array import array
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOCKET_PATH = "/run/systemd/journal/socket"
QUEUE_BYTES = 4 * 2**20
"""What may wait for journald: some 10,000 lines. What comes on top is dropped and counted."""
SEND_SECONDS = 0.5
"""How long one send may block before the thread looks whether it is to end."""
RETRY_SECONDS = 0.1
"""Before the next try when nobody listens, as while journald is restarted."""
CLOSE_SECONDS = 2.0
"""How long the last lines may take."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_TOO_BIG = frozenset({errno.EMSGSIZE, errno.ENOBUFS})


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram for ``fields``.

    A value of several lines goes with its length before it, so that no text can forge a field.
    """
    simple, parts = [], []
    for name, value in fields.items():
        if "\n" not in value:
            simple.append(f"{name}={value}\n")
        else:
            data = value.encode("utf-8", "backslashreplace")
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data))
    return "".join(simple).encode("utf-8", "backslashreplace") + b"".join(parts)


class JournalWriter:
    """Sends lines in order: at once while journald takes them at once, else from a thread.

    Args:
        path: where journald listens.
        dropped: told how many lines were dropped because the queue was full; called from
            whichever thread notices.
        queue_bytes: how much may wait.

    Raises:
        OSError: nobody listens at ``path``.
        RuntimeError: no thread is to be had.
    """

    def __init__(
        self,
        path: str = SOCKET_PATH,
        *,
        dropped: Callable[[int], None],
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._path = path
        self._dropped = dropped
        self._queue_bytes = queue_bytes
        self._socket = _open(path)
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._more = threading.Condition()
        self._give_up_at: float | None = None
        self._thread = self._start()

    @property
    def is_idle(self) -> bool:
        """Whether journald has taken everything so far."""
        return not self._lines

    def write(self, fields: Mapping[str, str]) -> None:
        """Send one line now or soon; never blocks, drops the line if too much waits already."""
        try:
            self._write(encode(fields))
        except MemoryError:  # what is logged is not worth the failure of who logs it
            self._dropped(1)

    def _write(self, line: bytes) -> None:
        with self._more:
            if not self._lines and self._give_up_at is None and self._send_now(line):
                return
            # A line as long as the whole queue may pass while nothing else waits.
            fits = not self._lines or self._waiting_bytes + len(line) <= self._queue_bytes
            if fits and self._give_up_at is None:
                self._lines.append(line)
                self._waiting_bytes += len(line)
                self._more.notify()
                if not self._thread.is_alive():  # there was no memory left for what it did
                    with suppress(RuntimeError, MemoryError):  # tried again with the next line
                        self._thread = self._start()
                return
        self._dropped(1)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="journal", daemon=True)
        thread.start()
        return thread

    def _send_now(self, line: bytes) -> bool:
        # Waking the thread for each line would cost more than all the rest of logging it.
        try:
            self._socket.sendto(line, socket.MSG_DONTWAIT, self._path)
        except OSError:
            return False
        return True

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits, for ``timeout_seconds`` at the most; takes no more lines."""
        with self._more:
            self._give_up_at = time.monotonic() + timeout_seconds
            self._more.notify()
        self._thread.join(timeout_seconds + 2 * SEND_SECONDS)

    def _run(self) -> None:
        with suppress(MemoryError):  # started again with the next line, the first one that waits
            self._send_all()

    def _send_all(self) -> None:
        while (line := self._next()) is not None:
            while not (sent := self._send(line)) and not self._is_late():
                pass
            if not sent:
                self._dropped(1)
            with self._more:
                self._lines.popleft()
                self._waiting_bytes -= len(line)
        self._socket.close()

    def _next(self) -> bytes | None:
        """Wait for a line and return it, still in the queue; None once it is time to end."""
        with self._more:
            while not self._lines and self._give_up_at is None:
                self._more.wait()
            if self._is_late():
                self._dropped(len(self._lines))
                self._lines.clear()
            return self._lines[0] if self._lines else None

    def _is_late(self) -> bool:
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    def _send(self, line: bytes) -> bool:
        """Send one line; False if journald did not take it now."""
        try:
            self._socket.sendto(line, self._path)
        except BlockingIOError:  # SEND_SECONDS are over
            return False
        except OSError as error:
            if error.errno in _TOO_BIG:
                return self._send_as_file(line)
            time.sleep(RETRY_SECONDS)
            return False
        return True

    def _send_as_file(self, line: bytes) -> bool:
        try:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            descriptor = os.memfd_create("ai-ticket-log-line", flags)
        except OSError:  # out of descriptors, or of memory
            time.sleep(RETRY_SECONDS)
            return False
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(line)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
            self._socket.sendmsg([], rights, 0, self._path)
        except OSError:
            time.sleep(RETRY_SECONDS)
            return False
        finally:
            os.close(descriptor)
        return True


def _open(path: str) -> socket.socket:
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # The kernel's own timeout: with Python's, a full journald would make the thread spin.
    whole, fraction = divmod(SEND_SECONDS, 1)
    timeout = struct.pack("@ll", int(whole), int(fraction * 1_000_000))
    journal.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
            trial.connect(path)
    except OSError:
        journal.close()
        raise
    return journal
