"""The head of a request is read as h11 reads it, or refused; never in a third way."""

from __future__ import annotations

import random

import h11
import pytest

from ai_ticket_daemon.server.listen.framing import MAX_HEADER_BYTES, HeadRefused
from ai_ticket_daemon.server.listen.request_head import Head, end_of_head, read_head
from tests.support.attacks.fuzzing import mutate

HEADS = (
    b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /live?a=b HTTP/1.0\r\n\r\n",
    b"POST /event HTTP/1.1\r\nHost: a:80\r\nContent-Length: 15, 15\r\nX:\t y \t\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\nconnection: a, Close\r\n\r\n",
    b"POST /e HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 5\r\nx: \xe4\r\n\r\n",
    b"HEAD http://a/live HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\ny:\r\n\r\n",
)
WORDS = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\x0b", b"\x0c", b"\x7f", b"\xff", b"0", b",",
    b"host: b\r\n", b"content-length: 5\r\n", b"content-length: +5\r\n", b"content-length:\r\n",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: x, chunked\r\n", b" folded\r\n",
    b"connection: close\r\n", b"HTTP/1.0", b"HTTP/2.0", b"CONNECT ", b"expect: 100-continue\r\n",
)  # fmt: skip


def ours(data: bytes) -> Head | None:
    """Return what is read; None if it is refused, or not all there."""
    try:
        end = end_of_head(data, 0)
        return read_head(data[:end]) if end else None
    except HeadRefused:
        return None


def theirs(data: bytes) -> h11.Request | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def assert_agrees(data: bytes) -> bool:
    """Check one head; return whether it was taken."""
    head = ours(data)
    if head is None:
        return False
    request = theirs(data)
    assert request is not None, data
    assert (head.method, head.target) == (request.method, request.target), data
    assert head.version.encode() == request.http_version
    fields = dict(request.headers)
    length = None if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))
    assert head.length == length, data
    special = {b"content-length", b"transfer-encoding"}
    assert [f for f in head.headers if f[0] not in special] == [
        (bytes(name), bytes(value)) for name, value in request.headers if name not in special
    ], data
    return True


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_a_usual_head_is_read_as_h11_reads_it(head: bytes) -> None:
    assert assert_agrees(head)


def test_a_changed_head_is_read_as_h11_reads_it_or_refused() -> None:
    chance = random.Random(16)
    taken = sum(assert_agrees(mutate(chance, chance.choice(HEADS), WORDS)) for _ in range(3000))
    assert 300 < taken < 2900


@pytest.mark.parametrize(
    ("head", "keeps", "expects"),
    [
        (HEADS[0], True, False),
        (HEADS[1], False, False),
        (HEADS[3], False, False),
        (HEADS[4], True, True),
        (HEADS[5], True, False),
        (HEADS[4].replace(b"/1.1", b"/1.0"), False, False),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", False, False),
    ],
)
def test_a_head_says_whether_more_may_follow_and_whether_the_client_waits(
    head: bytes, keeps: bool, expects: bool
) -> None:
    read = read_head(head)
    assert (read.keeps, read.expects) == (keeps, expects)


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_a_head_that_comes_byte_by_byte_ends_where_it_ends(head: bytes) -> None:
    for size in range(len(head)):
        assert end_of_head(head[:size], max(0, size - 1)) == 0
    assert end_of_head(head + b"more", len(head) - 1) == len(head)


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01", b" GET", b"\0", b"GET /live HTTP/1.1\n", b"GET / HTTP/1.1\r\na: b\n"]
)
def test_what_cannot_become_a_head_is_refused_before_its_end(start: bytes) -> None:
    with pytest.raises(HeadRefused):
        end_of_head(start, 0)


def test_a_head_without_an_end_is_refused_once_it_is_too_long() -> None:
    with pytest.raises(HeadRefused) as caught:
        end_of_head(b"GET /" + b"a" * MAX_HEADER_BYTES, 0)
    assert caught.value.http_status == 431
