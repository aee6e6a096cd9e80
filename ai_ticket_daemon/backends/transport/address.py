"""Where a server is: what its base URL says, read once."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SENT_AS_IT_IS = "!$%&'()*+,-./:;=@[\\]^_|~"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and the secret of the wire to it.

    ``family`` None: ``host`` is a name. ``tls`` None: it is talked to in plain text. ``authority``
    is what the header ``Host`` says; ``path`` is what goes before each path.
    """

    host: str
    port: int
    family: socket.AddressFamily | None
    authority: str
    path: str
    tls: ssl.SSLContext | None = field(repr=False)


def address_of(url: str) -> Address:
    """Return what a base URL says, which the configuration has checked."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    default = _DEFAULT_PORTS[parts.scheme]
    port = parts.port or default
    authority = f"[{host}]" if ":" in host else host
    path = quote(parts.path.rstrip("/"), safe=_SENT_AS_IT_IS)
    return Address(
        host=host,
        port=port,
        family=_family_of(host),
        authority=authority if port == default else f"{authority}:{port}",
        path=path,
        # Loading the authorities costs 20 ms, and a plain URL never needs them.
        tls=_tls() if parts.scheme == "https" else None,
    )


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _family_of(host: str) -> socket.AddressFamily | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return socket.AF_INET
    # An address with a scope has to be looked up for the number of its interface.
    return None if address.scope_id else socket.AF_INET6
