"""What a request asks for, read from its target and ``Host`` by pure functions.

Paths are exact: nothing is decoded, joined or stripped, so that a proxy that forbids a path and the
daemon that serves it never read it differently (RFC 9112 section 3.2, RFC 9110 section 4.2).
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LABEL_CHARACTERS = 63
MAX_HOST_CHARACTERS = 255

_ABSOLUTE = re.compile(rb"https?://([^/]*)(.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
# What RFC 3986 lets a registered name be made of, of which DNS uses the most part.
_NAME = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_ZONE = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
_MAX_PORT = 65_535


def path_of(target: bytes) -> str:
    """Return the path of a request's target without its query; "" if it has none, such as ``*``.

    Raises:
        RequestRefused: ``invalid_request``: the host of an absolute target is none.
    """
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            return ""
        if not absolute[1] or not is_authority(absolute[1]):
            raise _refused("The target of the request names a host that is none.")
        target = absolute[2]
    return target.decode("latin-1")


def check_host(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check the one ``Host`` of a request (names in lower case), or ``:authority`` in its place.

    Raises:
        RequestRefused: ``invalid_request``: there are several that differ, or it is no host.
    """
    found = {value for name, value in headers if name == b"host"}
    if len(found) > 1:
        raise _refused("The request names two hosts; send one Host.")
    for value in found:
        if not is_authority(value):
            raise _refused("The header Host holds no host name or address.")


def is_authority(value: bytes) -> bool:
    """Tell whether ``value`` is a host and a port as a URI may have them, the port optional.

    An empty one is: clients send it where the target has no host. Someone's name and password
    before the host are not (RFC 9110 section 4.2.4).
    """
    try:
        match = _AUTHORITY.fullmatch(value.decode("ascii"))
    except UnicodeDecodeError:
        return False
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        return False
    host = match["host"]
    if host.startswith("["):
        return _is_ipv6(host[1:-1])
    return len(host) <= MAX_HOST_CHARACTERS and _is_name(host)


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    # A zone is written behind "%25" (RFC 6874), and by many behind "%" alone.
    if percent and not _ZONE.fullmatch(zone.removeprefix("25") or zone):
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    if not _NAME.fullmatch(host):
        return False
    labels = host.removesuffix(".").split(".") if host else []
    return all(1 <= len(label) <= MAX_LABEL_CHARACTERS for label in labels)


def _refused(message: str) -> RequestRefused:
    return RequestRefused(ErrorCode.INVALID_REQUEST, message)
