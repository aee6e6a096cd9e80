"""What systemd is told, and what it hands over; does nothing where there is no systemd.

Told (sd_notify(3)): one datagram per message to ``$NOTIFY_SOCKET``. Handed over: listening sockets
(sd_listen_fds(3)), credentials (systemd.exec(5)) and how often the watchdog wants to be fed
(sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_LISTEN_FD = 3
MAX_STATUS_CHARACTERS = 500
PATIENCE_SECONDS = 0.2
"""How long a systemd that does not read may hold up the event loop, for what has to arrive."""


@dataclass(slots=True)
class Notifier:
    """Sends messages to systemd.

    What systemd does not take is dropped: at once, or after a moment where it waits for it. The
    socket stays open from the first message on: the watchdog has to be fed also when no descriptor
    is left.

    Args:
        address: where systemd listens, as in ``$NOTIFY_SOCKET``; empty if nobody does.
    """

    address: str = ""
    _socket: socket.socket | None = field(default=None, init=False, repr=False, compare=False)

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def ready(self) -> None:
        """Startup is complete, or the reload that was announced is."""
        self._send("READY=1", patience_seconds=PATIENCE_SECONDS)

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` follows, whether it is applied or refused."""
        # systemd wants to know when, to tell this message from one it has not caused.
        monotonic_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        announcement = ("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}")
        self._send(*announcement, patience_seconds=PATIENCE_SECONDS)

    def stopping(self) -> None:
        """The stop has begun."""
        self._send("STOPPING=1", patience_seconds=PATIENCE_SECONDS)

    def status(self, text: str) -> bool:
        """Show ``text``, made one line, in ``systemctl status``; return whether it was taken."""
        return self._send(f"STATUS={' '.join(text.split())[:MAX_STATUS_CHARACTERS]}")

    def watchdog(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for that much time from now on for the start or stop under way."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *assignments: str, patience_seconds: float = 0.0) -> bool:
        if not self.address:
            return False
        path = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        message = "\n".join(assignments).encode("utf-8", "backslashreplace")
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.settimeout(patience_seconds)
            self._socket.sendto(message, path)
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Systemd:
    """What this process was given by systemd.

    Args:
        notifier: tells systemd how things go.
        watchdog_seconds: the longest time between two feeds; None if it does not watch.
        listen_fds: the sockets handed over, by file descriptor, with the names they were given.
    """

    notifier: Notifier = field(default_factory=Notifier)
    watchdog_seconds: float | None = None
    listen_fds: tuple[tuple[int, str], ...] = ()


def from_environment(environ: Mapping[str, str], pid: int) -> Systemd:
    """Return what the environment of the process ``pid`` says it was given."""
    return Systemd(
        Notifier(environ.get("NOTIFY_SOCKET", "")),
        _watchdog_seconds(environ, pid),
        _listen_fds(environ, pid),
    )


def journal_reads(environ: Mapping[str, str], file_descriptor: int = 2) -> bool:
    """Return whether what is written to the descriptor (standard error) ends up in the journal.

    The variable alone does not tell: a terminal that was started by a service passes it on.
    """
    try:
        opened = os.fstat(file_descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{opened.st_dev}:{opened.st_ino}"


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    microseconds = _number(environ, "WATCHDOG_USEC")
    # A child that inherited the environment is not the one that is watched.
    if microseconds is None or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return microseconds / 1_000_000 or None


def _listen_fds(environ: Mapping[str, str], pid: int) -> tuple[tuple[int, str], ...]:
    count = _number(environ, "LISTEN_FDS")
    if count is None or environ.get("LISTEN_PID") != str(pid):
        return ()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (count - len(names))
    return tuple((FIRST_LISTEN_FD + index, names[index]) for index in range(count))


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
