from __future__ import annotations

import pytest

from ai_ticket_daemon.errors import RequestRefused
from ai_ticket_daemon.server.target import check_host, is_authority, path_of


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/live", "/live"),
        (b"//live", "//live"),
        (b"/%2flive", "/%2flive"),
        (b"/live/", "/live/"),
        (b"*", ""),
        (b"live", ""),
        (b"", ""),
        (b"http://a/live", "/live"),
        (b"HTTPS://a:443//live", "//live"),
        (b"http://a", ""),
        (b"ftp://a/live", ""),
        (b"/\xff", "/\xff"),
    ],
)
def test_a_path_is_taken_as_it_stands(target: bytes, path: str) -> None:
    assert path_of(target) == path


@pytest.mark.parametrize(
    "target", [b"http:///live", b"http://a..b/live", b"http://u@a/live", b"http://[/live"]
)
def test_a_target_with_a_host_that_is_none_is_refused(target: bytes) -> None:
    with pytest.raises(RequestRefused):
        path_of(target)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"a", b"a:80", b"a:", b"a.b.", b"a_b", b"A-1", b"[::1]", b"[::1]:80", b"[::]",
        b"[fe80::1%eth0]", b"[fe80::1%25eth0]", b"[fe80::1%25]", b"1.2.3.4:65535", b"a%20b",
        b"x" * 63 + b".y",
    ],
)  # fmt: skip
def test_hosts_are_told(value: bytes) -> None:
    assert is_authority(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a..b", b".a", b".", b"a..", b"x" * 64, b"x" * 64 + b".y", b"x." * 130, b"a b", b"a/b",
        b"a:65536", b"a:123456", b"a:-1", b"a:1:2", b"::1", b"[::1", b"[a]", b"[1.2.3.4]", b"[]",
        b"[::1%]", b"[::1%a b]", b"u@a", b"a%2", b"\xc3\xa4", b"a\0", b"a\n",
    ],
)  # fmt: skip
def test_what_is_no_host_is_told(value: bytes) -> None:
    assert not is_authority(value)


def test_a_request_names_one_host_or_none() -> None:
    check_host([])
    check_host([(b"host", b"a"), (b"x", b"b")])
    with pytest.raises(RequestRefused, match="two hosts"):
        check_host([(b"host", b"a"), (b"host", b"b")])
    with pytest.raises(RequestRefused, match="no host name"):
        check_host([(b"host", b"a..b")])
