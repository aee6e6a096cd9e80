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
import time
from array import array
from typing import TYPE_CHECKING

from ai_ticket_daemon.telemetry.bounded_sender import BoundedSender

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
        self._socket = _open(path)
        self._sender = BoundedSender[bytes](
            "journal",
            lambda lines: self._send(lines[0]),
            dropped=dropped,
            bound=queue_bytes,
            weigh=len,
            send_now=self._send_now,
        )

    @property
    def is_idle(self) -> bool:
        """Whether journald has taken everything so far."""
        return self._sender.is_idle

    def write(self, fields: Mapping[str, str]) -> None:
        """Send one line now or soon; never blocks, drops the line if too much waits already."""
        try:
            self._sender.put(encode(fields))
        except MemoryError:  # what is logged is not worth the failure of who logs it
            self._dropped(1)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits, for ``timeout_seconds`` at the most; takes no more lines."""
        self._sender.close(timeout_seconds, grace_seconds=2 * SEND_SECONDS)
        self._socket.close()

    def _send_now(self, line: bytes) -> bool:
        try:
            self._socket.sendto(line, socket.MSG_DONTWAIT, self._path)
        except OSError:
            return False
        return True

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
