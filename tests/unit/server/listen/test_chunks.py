"""The chunks of a body give the same text however they come, and nothing else is taken for them."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.server.listen.chunks import ChunkedBody
from ai_ticket_daemon.server.listen.framing import HeadRefused

BODY = b"5\r\nhello\r\n7;a=b \r\n, world\r\n0\r\nx: y\r\n\r\n"
NEXT = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(BODY) + len(NEXT)])
def test_a_body_is_the_same_however_it_is_cut(size: int) -> None:
    body, text, data, at = ChunkedBody(), b"", BODY + NEXT, 0
    while not body.ended:
        text += body.feed(data[at : at + size])
        at += size
    assert text == b"hello, world"
    assert body.rest + data[at:] == NEXT


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "chunks",
    [
        b"5\nhello",
        b"5\r\nhelloX",
        b"5\r\nhello\n",
        b"5\r\nhello\r\r\n",
        b"\r\n",
        b"x\r\n",
        b"+5\r\n",
        b"0x5\r\n",
        b" 5\r\n",
        b"5 ;a\r\n",
        b"5;\x00\r\n",
        b"5;\x0b\r\n",
        b"f" * 17 + b"\r\n",
        b"0\r\nno field\r\n",
        b"0\r\nx: y\n",
        b"0\r\n x: y\r\n",
        b"0\r\nx : y\r\n",
        b"5;" + b"x" * 20_000,
        (b"1;" + b"x" * 500 + b"\r\na\r\n") * 40,
        b"0\r\n" + b"x: y\r\n" * 3000,
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_what_is_no_chunk_is_refused(chunks: bytes, size: int) -> None:
    body = ChunkedBody()
    with pytest.raises(HeadRefused):
        for at in range(0, len(chunks), size):
            body.feed(chunks[at : at + size])
