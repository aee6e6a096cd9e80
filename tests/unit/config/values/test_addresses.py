from __future__ import annotations

from pathlib import Path

import pytest

from ai_ticket_daemon.config.values.addresses import (
    FdBind,
    TcpBind,
    UnixBind,
    parse_bind,
    parse_tcp_bind,
    parse_url,
)
from ai_ticket_daemon.config.values.schema import Invalid


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:5000",
        "[::1]:5000",
        "[::]:0",
        "localhost:80",
        "gpu-1.example.:65535",
        "unix:/run/x",
        "fd://3",
    ],
)
def test_a_bind_reads_what_it_writes(text: str) -> None:
    assert str(parse_bind(text)) == text


def test_a_bind_says_whether_other_hosts_can_connect() -> None:
    local = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x", "fd://3"]
    remote = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"]
    assert all(parse_bind(text).is_local for text in local)
    assert not any(parse_bind(text).is_local for text in remote)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "HOST:PORT"),
        ("5000", "HOST:PORT"),
        (":5000", "HOST:PORT"),
        ("127.0.0.1", "HOST:PORT"),
        ("127.0.0.1:", "the port must be"),
        ("127.0.0.1:http", "the port must be"),
        ("127.0.0.1:65536", "the port must be"),
        ("127.0.0.1:-1", "the port must be"),
        ("127.0.0.1:٣", "the port must be"),
        ("127.0.0.1: 1", "the port must be"),
        ("::1:5000", "needs brackets"),
        ("[::1:5000", "needs brackets"),
        ("[::g]:5000", "not an IPv6 address"),
        ("[127.0.0.1]:5000", "not an IPv6 address"),
        ("a b:5000", "neither a name nor"),
        ("http://x:5000", "needs brackets"),
        ("-x:5000", "neither a name nor"),
        ("unix:run/http", "absolute path"),
        ("unix:", "absolute path"),
        ("unix:/a\0b", "absolute path"),
        ("unix:/" + "é" * 54, "limited to 107 bytes"),
        ("fd://", "file descriptor"),
        ("fd://three", "file descriptor"),
        ("fd://-1", "file descriptor"),
    ],
)
def test_a_wrong_bind_is_refused(text: str, part: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_bind(text)
    assert part in str(caught.value)


def test_binds_are_values() -> None:
    assert parse_bind("[::1]:1") == TcpBind("::1", 1)
    longest = "/" + "x" * 106
    assert parse_bind(f"unix:{longest}") == UnixBind(Path(longest))
    assert len({parse_bind("fd://3"), FdBind(3)}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:5001", "http://127.0.0.1:5001"),
        ("http://127.0.0.1:5001/", "http://127.0.0.1:5001"),
        ("https://gpu.example", "https://gpu.example"),
        ("HTTP://GPU:5001/Prefix/", "HTTP://GPU:5001/Prefix"),
        ("http://[::1]:5001/a/b", "http://[::1]:5001/a/b"),
        ("http://under_score:80", "http://under_score:80"),
    ],
)
def test_a_url_keeps_its_path_prefix_and_loses_its_last_slash(text: str, expected: str) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "gpu:5001", "//gpu", "http:/gpu", "http://", "http:///x", "file:///etc", "http://a@b",
     "http://:x@b", "http://a?", "http://a#", "http://a/?x", "http://a:0", "http://a:65536",
     "http://a:x", "http://a:", "http://[::1", "http://[x]", "http://a b", "http://a\n", "http://é",
     "http://a\\b", "http://-a", "\thttp://a"],
)  # fmt: skip
def test_a_wrong_url_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_url(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "127.0.0.1:80", False),
        ("0.0.0.0:80", "127.0.0.1:81", False),
        ("10.0.0.1:80", "10.0.0.2:80", False),
        ("0.0.0.0:0", "127.0.0.1:0", False),
    ],
)
def test_addresses_overlap_if_one_process_cannot_listen_on_both(
    one: str, other: str, overlap: bool
) -> None:
    first, second = parse_tcp_bind(one), parse_tcp_bind(other)

    assert first.overlaps(second) is overlap
    assert second.overlaps(first) is overlap
