"""Addresses: where we listen (binds) and whom we call (URLs)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ai_ticket_daemon.config.values.schema import Rule, not_a, wrong

_BIND_KIND = 'an address such as "0.0.0.0:5000", "[::1]:5000", "unix:/path" or "fd://3"'
_TCP_KIND = 'an address such as "0.0.0.0:9464" or "[::1]:9464"'
_URL_KIND = 'a URL such as "http://127.0.0.1:5001"'
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?")
_DIGITS = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65535
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared with
# sun_path holds 108 bytes with its closing NUL.
_MAX_UNIX_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class TcpBind:
    """Listen on a TCP port; ``host`` without brackets; port 0 lets the system choose one."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """True if only this host can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def overlaps(self, other: TcpBind) -> bool:
        """Return whether one process cannot listen on both, by what the text of them tells."""
        if self.port != other.port or self.port == 0:
            return False
        hosts = {self.host, other.host}
        if len(hosts) == 1:
            return True
        # Each wildcard is for one family: "[::]" leaves IPv4 to others.
        are_v6 = {":" in host for host in hosts}
        return len(are_v6) == 1 and bool(hosts & _WILDCARDS)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixBind:
    """Listen on a Unix socket at ``path``."""

    path: Path

    @property
    def is_local(self) -> bool:
        """True: only this host can connect."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class FdBind:
    """Listen on a socket that was handed over as file descriptor ``fd`` (socket activation)."""

    fd: int

    @property
    def is_local(self) -> bool:
        """True: who can connect was decided where the socket was made."""
        return True

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Bind = TcpBind | UnixBind | FdBind


def parse_bind(text: str) -> Bind:
    """Read ``host:port``, ``[IPv6]:port``, ``unix:/path`` or ``fd://N``.

    Raises:
        Invalid: the text is none of these.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise wrong('must be "unix:" and an absolute path, such as "unix:/run/ai-ticket/http"')
        if len(path.encode()) > _MAX_UNIX_PATH_BYTES:
            raise wrong(f"the path of a Unix socket is limited to {_MAX_UNIX_PATH_BYTES} bytes")
        return UnixBind(Path(path))
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not _DIGITS.fullmatch(number):
            raise wrong('must be "fd://" and the number of a file descriptor, such as "fd://3"')
        return FdBind(int(number))
    return parse_tcp_bind(text)


def parse_tcp_bind(text: str) -> TcpBind:
    """Read ``host:port`` or ``[IPv6]:port``.

    Raises:
        Invalid: the text is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise wrong('must be "HOST:PORT", such as "127.0.0.1:5000"; use 0.0.0.0 for all addresses')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise wrong("the text between [ and ] is not an IPv6 address")
    elif ":" in host:
        raise wrong('an IPv6 address needs brackets, as in "[::1]:5000"')
    elif not _is_host(host):
        raise wrong("the host is neither a name nor an IP address")
    return TcpBind(host, parse_port(port))


def parse_port(text: str) -> int:
    """Read a port number.

    Raises:
        Invalid: not a whole number from 0 to 65535.
    """
    if not _DIGITS.fullmatch(text) or int(text) > _MAX_PORT:
        raise wrong(f"the port must be a whole number from 0 to {_MAX_PORT}")
    return int(text)


def parse_url(text: str) -> str:
    """Check a server's base URL and return it without a trailing slash.

    Raises:
        Invalid: the URL has no place for requests, or carries what does not belong there. The
            message does not quote the URL, which may hold a password.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise wrong("a URL may hold printable ASCII characters only, and no spaces")
    if "://" not in text:
        raise wrong(f"has no scheme; it must be {_URL_KIND}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong(f"is not a URL; it must be {_URL_KIND}, the port from 1 to 65535") from None
    if parts.scheme not in {"http", "https"}:
        raise wrong("only http:// and https:// are supported")
    if "@" in parts.netloc:
        raise wrong(
            "must not hold a user name or password; a server's password goes into `password_file`"
        )
    if "?" in text or "#" in text:
        raise wrong("must not hold a query (?) or fragment (#), only a path prefix if any")
    host = parts.hostname or ""
    if not (_is_host(host) or _is_ipv6(host)) or port == 0 or parts.netloc.endswith(":"):
        raise wrong(f"has no valid host and port; it must be {_URL_KIND}")
    return text.rstrip("/")


def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _read_bind(value: object) -> Bind:
    if not isinstance(value, str):
        raise not_a(_BIND_KIND, value)
    return parse_bind(value)


def _read_tcp_bind(value: object) -> TcpBind:
    if not isinstance(value, str):
        raise not_a(_TCP_KIND, value)
    if value.startswith(("unix:", "fd:")):
        raise wrong(f"must be {_TCP_KIND}; other sockets are not served here")
    return parse_tcp_bind(value)


def _read_url(value: object) -> str:
    if not isinstance(value, str):
        raise not_a(_URL_KIND, value)
    return parse_url(value)


bind: Rule[Bind] = Rule(_BIND_KIND, _read_bind)
tcp_bind: Rule[TcpBind] = Rule(_TCP_KIND, _read_tcp_bind)
url: Rule[str] = Rule(_URL_KIND, _read_url)
