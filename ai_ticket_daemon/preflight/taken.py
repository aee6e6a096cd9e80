"""Which addresses are taken, and by whom: read from ``/proc``, so that nobody is disturbed."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.addresses import TcpBind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ai_ticket_daemon.config.values.addresses import UnixBind

_LISTENS = "0A"
_SCRIPT, _MODULE = "ai-ticket-daemon", "ai_ticket_daemon"
_WITH_VALUE = frozenset({"-W", "-X"})


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on an address; 0 if it may not be known."""

    pid: int = 0

    @property
    def is_daemon(self) -> bool:
        """Whether it is an ai-ticket-daemon."""
        return runs_daemon(_command(self.pid).split("\0"))

    def __str__(self) -> str:
        if not self.pid:
            return "another process (`sudo ss -ltnp` shows it)"
        name = Path(_command(self.pid).split("\0")[0]).name
        return f"the process {self.pid}, {name or 'of another user'}"


def runs_daemon(words: Sequence[str]) -> bool:
    """Tell whether a command line starts an ai-ticket-daemon, by itself or by Python.

    What else stands in it says nothing: a checkout is a folder of this name, too.
    """
    if Path(words[0]).name == _SCRIPT:
        return True
    options = iter(words[1:])
    for word in options:
        if word == "-m":
            return next(options, "") == _MODULE
        if not word.startswith("-"):
            return Path(word).name == _SCRIPT
        if word in _WITH_VALUE:
            next(options, None)
    return False


def holder_of(bind: TcpBind) -> Holder | None:
    """Return who listens where ``bind`` would; None if nobody does."""
    if bind.port == 0:
        return None
    hosts = {"127.0.0.1", "::1"} if bind.host == "localhost" else {bind.host}
    for address, inode in _listening():
        if any(TcpBind(host, bind.port).overlaps(address) for host in hosts):
            return Holder(_owner(inode))
    return None


def holder_of_path(bind: UnixBind) -> Holder | None:
    """Return who listens on a Unix socket; None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(bind.path))
        except BlockingIOError:
            return Holder()  # its backlog is full: somebody listens
        except OSError:
            return None
        pid = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4]
        return Holder(int.from_bytes(pid, "little"))


def _listening() -> Iterator[tuple[TcpBind, str]]:
    """Yield each address that is listened on over TCP, with the inode of its socket."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS:
                host, _, port = fields[1].partition(":")
                yield TcpBind(_host(host), int(port, 16)), fields[9]


def _host(text: str) -> str:
    # Words of 32 bits, each in the byte order of this machine (proc_net_tcp(5)).
    data = b"".join(
        int(text[index : index + 8], 16).to_bytes(4, "little") for index in range(0, len(text), 8)
    )
    return str(ipaddress.ip_address(data))


def _owner(inode: str) -> int:
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) == wanted:
                    return int(process.name)
        except OSError:
            continue
    return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
