"""journald's native protocol: one datagram per line, each value with its length.

See systemd's "Native Journal Protocol" (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_PATH = "/run/systemd/journal/socket"
SEND_TIMEOUT_SECONDS = 1.0


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram for ``fields``.

    Every value goes with its length before it, so that no text can forge a field.
    """
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "backslashreplace")
        parts.append(b"%s\n%s%s\n" % (name.encode("ascii"), struct.pack("<Q", len(data)), data))
    return b"".join(parts)


class JournalSocket:
    """Sends log lines to journald; what journald does not take goes to standard error."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def write(self, fields: Mapping[str, str]) -> None:
        """Send one line."""
        try:
            self._socket.send(encode(fields))
        except OSError:
            print(f"<{fields['PRIORITY']}>{fields['MESSAGE']}", file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def open_journal(path: str = SOCKET_PATH) -> JournalSocket:
    """Connect to journald.

    Raises:
        OSError: nobody listens at ``path``.
    """
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.settimeout(SEND_TIMEOUT_SECONDS)
    journal.connect(path)
    return JournalSocket(journal)
