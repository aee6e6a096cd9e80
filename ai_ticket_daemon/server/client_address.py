"""Which client a request comes from, seen through the proxies that are trusted to tell.

``X-Forwarded-For`` and ``Forwarded`` (RFC 7239) are written by whoever forwards a request, and by
any client that likes to. So they are read from the end, and no further than the first address that
is not a trusted proxy's.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from ai_ticket_daemon.server.headers import value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ai_ticket_daemon.config.values.rules import IpNetwork

LOCAL = "local"
"""Stands for whoever connects over a Unix socket."""

_IPV6_PREFIX = 64
"""An IPv6 client usually has a network of this size to itself, with any number of addresses."""

_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^\s;"]*))\s*(?:$|;)', re.IGNORECASE)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_of(
    headers: Iterable[tuple[bytes, bytes]], peer: str | None, trusted: Sequence[IpNetwork]
) -> str:
    """Return what to call the client of a request: its address, or its network for IPv6.

    Args:
        headers: those of the request, names in lower case.
        peer: the address at the other end of the connection; None on a Unix socket, whose peer
            is trusted, since the permissions of the socket say who may connect.
        trusted: where proxies are.
    """
    if peer is not None and not trusted and ":" not in peer:
        return peer  # nearly every request of nearly every daemon
    address = None if peer is None else _parse(peer)
    if peer is not None and not _is_trusted(address, trusted):
        return _name(address) if address is not None else peer
    forwarded = value_of(headers, b"x-forwarded-for")
    standard = value_of(headers, b"forwarded")
    if forwarded and standard:
        # A proxy writes one of the two, and passes the other one on as the client made it up.
        by_both = {
            _behind(_hops(forwarded), address, trusted),
            _behind(_standard_hops(standard), address, trusted),
        }
        found = by_both.pop() if len(by_both) == 1 else address
    elif forwarded:
        found = _behind(_hops(forwarded), address, trusted)
    else:
        found = _behind(_standard_hops(standard), address, trusted)
    return LOCAL if found is None else _name(found)


def counted_address(peer: str | None, trusted: Sequence[IpNetwork]) -> str | None:
    """Return the address, or the network for IPv6, that a connection counts for.

    None for a Unix socket and a trusted proxy: those bring the requests of many.
    """
    if peer is None:
        return None
    address = _parse(peer)
    if address is None:
        return peer
    return None if _is_trusted(address, trusted) else _name(address)


def _behind(
    hops: Iterable[str], proxy: _Address | None, trusted: Sequence[IpNetwork]
) -> _Address | None:
    """Walk from ``proxy`` along ``hops``, nearest first, to the first that is no trusted proxy."""
    at = proxy
    for hop in hops:
        address = _parse(hop)
        if address is None:
            break  # hidden, unknown or nonsense: the one who told it is as far as we see
        at = address
        if not _is_trusted(address, trusted):
            break
    return at


def _hops(value: str) -> Iterable[str]:
    return (hop.strip() for hop in reversed(value.split(",")))


def _standard_hops(value: str) -> Iterable[str]:
    if not value:
        return
    # No address holds a comma, so one inside quotes can only be somebody's nonsense.
    for element in reversed(value.split(",")):
        found = _FOR.search(element)
        yield (found[1] or found[2] or "") if found else ""


def _parse(text: str) -> _Address | None:
    """Return the address in ``text``, which may stand in brackets and have a port; else None."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def _is_trusted(address: _Address | None, trusted: Sequence[IpNetwork]) -> bool:
    return address is not None and any(address in network for network in trusted)


def _name(address: _Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
