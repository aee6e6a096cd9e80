"""Mutated requests on real sockets: each ends, none is a fault of ours, none is left behind."""

from __future__ import annotations

import re
import struct
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import h2.connection
import hpack
import pytest

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import UnixBind
from ai_ticket_daemon.testing.http import serving
from tests.support.attacks.fuzzing import Case, cases, complaints, mutate, short
from tests.support.attacks.socket_client import exchange

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.attacks.fuzzing import Complaints

__all__ = ["complaints", "short"]

pytestmark = pytest.mark.system

CASES_OF_A_SERVER = 1000
STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)

BODIES = (
    b'{"content": "The printer is on fire.", "max_tokens": 24}',
    b'{"content": "{\\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"a\\"}]}"}',
    b'{"content": "{\\"prompt\\": \\"a\\", \\"max_length\\": 3}", "stream": false}',
    (
        b'{"content": "a", "temperature": 0.5, "top_p": 1, "stop": ["\\n", "b"], "priority": 3, '
        b'"timeout_seconds": 30, "metadata": {"a": [1, {"b": null}]}, "seed": 1}'
    ),
    b'{"content": "\\u00e4\\ud83d\\ude00", "stream": true}',
)
BATCHES = (
    b'[{"content": "a"}, {"content": "b", "max_tokens": 2}]',
    b'{"content": "a"}\n{"content": "b"}\n\n{"content": 1}\n',
)
JSON_WORDS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"true", b"[[", b'{"a":', b"[{}],",
    b'"content":', b'"messages":', b'"prompt":', b'"max_tokens":', b'"stream":', b'"metadata":',
    b'"stop":', b'"priority":', b'"timeout_seconds":', b"\\ud83d", b"\\udc00", b"\\u0000",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"1e308", b"-1e-400", b"9" * 400, b"\n", b"\r",
    b"\x1b[2J", b"\xe2\x80\xa8", b'{"content":"x"}',
)  # fmt: skip

REQUESTS = (
    b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: a.example:5000\r\naccept: */*\r\n\r\n",
    b"HEAD /ready HTTP/1.1\r\nhost: a\r\n\r\nGET /live HTTP/1.1\r\nhost: a\r\n\r\n",
    (
        b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b'content-length: 16\r\n\r\n{"content": "a"}'
    ),
    (
        b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b'transfer-encoding: chunked\r\n\r\n8\r\n{"conten\r\n8;x=y\r\nt": "a"}\r\n0\r\n\r\n'
    ),
    (
        b"POST /events HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-ndjson\r\n"
        b'prefer: respond-async\r\ncontent-length: 17\r\n\r\n{"content": "a"}\n'
    ),
    b"GET /event/01a2208d-b7a7-7d22-9bca-151d3b8ee9ca?wait=0 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"DELETE /event/01a2208d-b7a7-7d22-9bca-151d3b8ee9ca HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /openapi.json HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
)
HTTP_WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b"/", b"//", b"%2f", b"%", b"?", b"#",
    b"host: foo..bar\r\n", b"host: " + b"a" * 70 + b"\r\n", b"host:\r\n", b"host: [::1\r\n",
    b"host: a:99999\r\n", b"content-length: 5\r\n", b"content-length: -1\r\n", b"HTTP/1.1",
    b"content-length: 5, 5\r\n", b"transfer-encoding: chunked\r\n", b"HTTP/2.0", b"OPTIONS *",
    b"transfer-encoding: gzip, chunked\r\n", b"expect: 100-continue\r\n", b"upgrade: h2c\r\n",
    b"connection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n", b"CONNECT ",
    b"http2-settings: %%%\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET ", b"hEAD ", b"POST ",
    b"prefer: wait=5, respond-async\r\n", b"idempotency-key: a\r\n", b"authorization: Bearer x\r\n",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    b"tracestate: a=b,c=\r\n", b"x-forwarded-for: ::1, a\r\n", b"accept: text/event-stream\r\n",
    b"content-type: application/json; charset=latin-1\r\n", b"content-encoding: gzip\r\n",
    b"ffffffff\r\n", b"-5\r\n", b"0\r\n\r\n", b'1;a="\r\n', b"\x00", b"\xff",
    b"x: y\r\n", b" x: y\r\n",
)  # fmt: skip


def h1_statuses(answer: bytes) -> list[bytes]:
    """Return the statuses of all responses."""
    return STATUS.findall(answer)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Path]:
    """Serve the HTTP surface on a Unix socket for the length of a block."""
    path = folder / "http"
    async with serving(HttpConfig(bind=(UnixBind(path),))):
        yield path


async def fuzz(
    room: str,
    folder: Path,
    complaints: Complaints,
    make: Callable[[random.Random], bytes],
    *,
    statuses: Callable[[bytes], list[bytes]] = h1_statuses,
) -> None:
    """Send all cases of a room.

    A server is used for a thousand cases and has then to end as if nothing had happened.
    """
    seen: Counter[bytes] = Counter()
    left: list[Case] = []
    every = cases(room)
    while left := [case for case, _ in zip(every, range(CASES_OF_A_SERVER), strict=False)]:
        async with served(folder) as path:
            for case in left:
                case.data = data = make(case.chance)
                with case.guarded():
                    answer = await exchange(path, data)
                    seen.update(statuses(answer))
                    assert not seen[b"500"], answer[:500]
                    assert not complaints.found, complaints.found
            assert STATUS.findall(await exchange(path, REQUESTS[0])) == [b"200"]
    print(f"{room}: {dict(seen)}")
    if seen.total() > 100:  # the cases went into all depths
        assert {b"200", b"400"} <= seen.keys()


async def test_mutated_http1_is_never_a_fault(short: Path, complaints: Complaints) -> None:
    def make(chance: random.Random) -> bytes:
        return mutate(chance, chance.choice(REQUESTS), HTTP_WORDS)

    await fuzz("http1", short, complaints, make)


async def test_mutated_json_is_never_a_fault(short: Path, complaints: Complaints) -> None:
    def make(chance: random.Random) -> bytes:
        batch = chance.random() < 0.4
        body = mutate(chance, chance.choice(BATCHES if batch else BODIES), JSON_WORDS)
        kind = b"application/x-ndjson" if batch and chance.random() < 0.5 else b"application/json"
        head = b"POST /%s HTTP/1.1\r\nhost: a\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
        return head % (b"events" if batch else b"event", kind, len(body)) + body

    await fuzz("json", short, complaints, make)


# ----------------------------------------------------------------------------------- HTTP/2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY = 1, 4, 8, 32


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(*pairs: tuple[str, str]) -> bytes:
    return bytes(hpack.Encoder().encode(pairs))


GET = header_block((":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/live"))
POST = header_block(
    (":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/event"),
    ("content-type", "application/json"),
)  # fmt: skip
BLOCKS = (
    GET,
    POST,
    header_block((":method", "GET"), (":path", "/live")),
    header_block((":method", "CONNECT"), (":authority", "a"), (":protocol", "websocket"),
                 (":scheme", "http"), (":path", "/")),
    header_block((":method", "GET"), (":scheme", "http"), (":authority", "foo..bar"),
                 (":path", "/live")),
    header_block((":method", "GET"), (":scheme", "http"), (":authority", "a" * 70),
                 (":path", "/health"), ("host", "b")),
    header_block((":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "*"),
                 ("connection", "close"), ("x" * 300, "y" * 3000)),
    b"\x82\x86\x84\x41\x8a\xff\xff", b"\x3f\xe1\xff\xff\xff", b"\x00" * 40,
)  # fmt: skip
FRAMES = (
    frame(SETTINGS, 0, 0, b""),
    frame(SETTINGS, 1, 0, b""),
    frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)),
    frame(SETTINGS, 0, 0, struct.pack(">HIHI", 5, 1, 1, 2**32 - 1)),
    *(frame(HEADERS, END_STREAM | END_HEADERS, 1, block) for block in BLOCKS),
    *(frame(HEADERS, END_HEADERS, stream, POST) for stream in (1, 3, 5)),
    frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 3, b"\0\0\0\x03\xff" + GET),
    frame(HEADERS, END_STREAM, 7, GET[:3]),
    frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 9, b"\xff" + GET),
    frame(CONTINUATION, END_HEADERS, 7, GET[3:]),
    frame(CONTINUATION, 0, 7, b""),
    *(frame(DATA, END_STREAM, stream, b'{"content": "a"}') for stream in (1, 3, 5)),
    frame(DATA, 0, 1, b""),
    frame(DATA, PADDED, 1, b"\x05a\0\0\0\0\0"),
    frame(PRIORITY, 0, 3, b"\0\0\0\x05\x10"),
    frame(PRIORITY, 0, 5, b"\0\0\0\x03\x10"),
    frame(PRIORITY, 0, 5, b"\0\0\0\x05\x10"),
    frame(RESET, 0, 1, struct.pack(">I", 8)),
    frame(RESET, 0, 3, struct.pack(">I", 2**32 - 1)),
    frame(PUSH, END_HEADERS, 1, b"\0\0\0\x02" + GET),
    frame(PING, 0, 0, b"12345678"),
    frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0) + b"bye"),
    frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)),
    frame(WINDOW, 0, 1, struct.pack(">I", 0)),
    frame(99, 255, 1, b"what is this"),
)


def renumbered(chosen: list[bytes]) -> list[bytes]:
    """Give each request a stream of its own, and the frames that follow it the same one."""
    stream, result = -1, []
    for one in chosen:
        kind = one[3]
        stream += 2 if kind == HEADERS else 0
        mine = kind in {HEADERS, DATA, CONTINUATION, RESET} and stream > 0
        result.append(one[:5] + struct.pack(">I", stream) + one[9:] if mine else one)
    return result


def frames(chance: random.Random) -> bytes:
    """Return a connection's worth of frames, in any order, some of them changed."""
    chosen = [FRAMES[0], frame(HEADERS, END_STREAM | END_HEADERS, 1, chance.choice(BLOCKS[:2]))]
    chosen += chance.choices(FRAMES, k=chance.randrange(1, 7))
    if chance.random() < 0.8:
        chosen = renumbered(chosen)
    for _ in range(chance.randrange(3)):
        at = chance.randrange(len(chosen))
        match chance.randrange(4):
            case _ if not chosen[at]:
                continue
            case 0:
                chosen[at] *= chance.choice((2, 20, 1200 // len(chosen[at]) + 1))
            case 1:  # another type, other flags or another stream
                changed = bytearray(chosen[at])
                changed[chance.choice((3, 4, 8)) % len(changed)] = chance.randrange(256)
                chosen[at] = bytes(changed)
            case 2:
                chosen[at] = mutate(chance, chosen[at], (b"\0", b"\xff" * 4, GET, FRAMES[0]))
            case _:
                chance.shuffle(chosen)
    return PREFACE + b"".join(chosen)


def h2_statuses(answer: bytes) -> list[bytes]:
    """Return the statuses of all responses; fails if what came is no HTTP/2."""
    decoder, statuses, at = hpack.Decoder(), [], 0
    decoder.max_allowed_table_size = 2**32  # as some cases allow
    while at + 9 <= len(answer):
        length, kind = int.from_bytes(answer[at : at + 3], "big"), answer[at + 3]
        payload, at = answer[at + 9 : at + 9 + length], at + 9 + length
        if kind == HEADERS:
            statuses += [bytes(v) for k, v in decoder.decode(payload, raw=True) if k == b":status"]
    return statuses


async def test_mutated_http2_is_never_a_fault(short: Path, complaints: Complaints) -> None:
    async with served(short) as path:
        client = h2.connection.H2Connection()
        client.initiate_connection()
        client.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", "a"),
                                (":path", "/live")], end_stream=True)  # fmt: skip
        whole = await exchange(path, client.data_to_send())
        assert h2_statuses(whole) == [b"200"]

    await fuzz("http2", short, complaints, frames, statuses=h2_statuses)
