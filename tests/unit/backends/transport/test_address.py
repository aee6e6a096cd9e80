"""What a base URL says of where a server is."""

from __future__ import annotations

import socket

import httpx
import pytest

from ai_ticket_daemon.backends.transport.address import address_of

URLS = [
    "http://127.0.0.1:5001", "http://localhost", "http://Gpu-1.Example:80/", "http://gpu:443/v1/",
    "https://gpu", "https://gpu:443/a/b", "https://gpu:8443/A%20b/%zz", "http://[::1]:5001/x",
    "http://[2001:db8::1]", "http://gpu/a~b!$&'()*+,;=:@[]|^\\{x}\"<y>`",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_server_is_addressed_as_other_clients_would(url: str) -> None:
    address, other = address_of(url), httpx.URL(url.rstrip("/"))
    assert address.authority.encode() == other.netloc
    assert address.path.encode() == other.raw_path.rstrip(b"/")
    assert (address.tls is not None) is (other.scheme == "https")
    assert address.host == other.host
    assert address.port == (other.port or {"http": 80, "https": 443}[other.scheme])


@pytest.mark.parametrize(
    ("url", "family"),
    [
        ("http://127.0.0.1", socket.AF_INET),
        ("http://[::1]", socket.AF_INET6),
        ("http://[fe80::1%25lo]", None),
        ("http://localhost", None),
        ("http://127.1", None),
    ],
)
def test_only_a_name_is_looked_up(url: str, family: socket.AddressFamily | None) -> None:
    assert address_of(url).family is family
