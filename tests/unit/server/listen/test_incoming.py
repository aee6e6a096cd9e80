"""However the bytes of requests come, they are the same requests."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.server.listen.incoming import Incoming

REQUESTS = (
    b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
    b"\r\nPOST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\n"
    b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nx: y\r\n\r\n"
    b"GET /d HTTP/1.1\r\nhost: a\r\n\r\n"
)
EXPECTED = [(b"/a", b""), (b"/b", b"hello"), (b"/c", b"hello"), (b"/d", b"")]


def has_body(incoming: Incoming) -> bool:
    return incoming.awaits_body


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 50, len(REQUESTS)])
def test_requests_are_the_same_however_they_are_cut(size: int) -> None:
    incoming = Incoming()
    targets: list[bytes] = []
    bodies: list[bytes] = []
    for at in range(0, len(REQUESTS), size):
        data = REQUESTS[at : at + size]
        if incoming.awaits_body:
            bodies[-1] += incoming.take_body(data)
        else:
            incoming.received += data
        while not incoming.awaits_body:
            head = incoming.next_head()
            if head is None:
                break
            targets.append(head.target)
            bodies.append(incoming.take_body(incoming.received) if has_body(incoming) else b"")
    assert list(zip(targets, bodies, strict=True)) == EXPECTED
    assert incoming.received == b""
