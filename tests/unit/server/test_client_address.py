from __future__ import annotations

from ipaddress import ip_network

import pytest

from ai_ticket_daemon.server.client_address import client_of

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1"))
XFF, FORWARDED = b"x-forwarded-for", b"forwarded"


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        # Nobody in between.
        ("192.0.2.1", [], "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        # Whoever is not trusted tells what it likes.
        ("192.0.2.1", [(XFF, b"198.51.100.7")], "192.0.2.1"),
        ("192.0.2.1", [(FORWARDED, b"for=198.51.100.7")], "192.0.2.1"),
        # A proxy.
        ("10.0.0.1", [(XFF, b"198.51.100.7")], "198.51.100.7"),
        ("::1", [(XFF, b"198.51.100.7")], "198.51.100.7"),
        ("10.0.0.1", [(FORWARDED, b"for=198.51.100.7;proto=https;by=10.0.0.1")], "198.51.100.7"),
        ("10.0.0.1", [(FORWARDED, b'By=1; FOR="198.51.100.7:4711"')], "198.51.100.7"),
        ("10.0.0.1", [(FORWARDED, b'for="[2001:db8::1]:80"')], "2001:db8::/64"),
        ("10.0.0.1", [(XFF, b"198.51.100.7:4711")], "198.51.100.7"),
        ("10.0.0.1", [(XFF, b"[2001:db8::1]:80")], "2001:db8::/64"),
        ("10.0.0.1", [(XFF, b"2001:db8::1")], "2001:db8::/64"),
        # What the client had sent itself stands in front, and does not count.
        ("10.0.0.1", [(XFF, b"203.0.113.9, 198.51.100.7")], "198.51.100.7"),
        ("10.0.0.1", [(XFF, b"203.0.113.9"), (XFF, b"198.51.100.7")], "198.51.100.7"),
        ("10.0.0.1", [(FORWARDED, b"for=203.0.113.9, for=198.51.100.7")], "198.51.100.7"),
        # Several proxies.
        ("10.0.0.1", [(XFF, b"203.0.113.9, 198.51.100.7, 10.0.0.3, 10.0.0.2")], "198.51.100.7"),
        ("10.0.0.1", [(XFF, b"10.0.0.3, 10.0.0.2")], "10.0.0.3"),
        # Nonsense: as far as a trusted one has told.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [(XFF, b"")], "10.0.0.1"),
        ("10.0.0.1", [(XFF, b"unknown")], "10.0.0.1"),
        ("10.0.0.1", [(XFF, b"203.0.113.9, unknown, 10.0.0.2")], "10.0.0.2"),
        ("10.0.0.1", [(XFF, b"\xff\xfe,,,")], "10.0.0.1"),
        ("10.0.0.1", [(FORWARDED, b"for=_hidden")], "10.0.0.1"),
        ("10.0.0.1", [(FORWARDED, b'for="unclosed')], "10.0.0.1"),
        ("10.0.0.1", [(FORWARDED, b"proto=https;xfor=198.51.100.7")], "10.0.0.1"),
        # Both headers: only what they agree on, since the client may have made one of them.
        (
            "10.0.0.1",
            [(XFF, b"198.51.100.7"), (FORWARDED, b"for=198.51.100.7")],
            "198.51.100.7",
        ),
        ("10.0.0.1", [(XFF, b"198.51.100.7"), (FORWARDED, b"for=203.0.113.9")], "10.0.0.1"),
        # A Unix socket.
        (None, [], "local"),
        (None, [(XFF, b"198.51.100.7")], "198.51.100.7"),
        (None, [(XFF, b"203.0.113.9, 198.51.100.7")], "198.51.100.7"),
        (None, [(XFF, b"nonsense")], "local"),
    ],
)
def test_a_client_is_who_the_nearest_trusted_proxy_saw(
    peer: str | None, headers: list[tuple[bytes, bytes]], expected: str
) -> None:
    assert client_of([(b"host", b"a"), *headers], peer, TRUSTED) == expected


def test_a_long_header_is_read_no_further_than_needed() -> None:
    value = b"203.0.113.9," * 100_000 + b"198.51.100.7"
    assert client_of([(XFF, value)], "10.0.0.1", TRUSTED) == "198.51.100.7"
