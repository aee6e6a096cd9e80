"""What can be read in two ways is refused, whoever sends it, and never a fault of the daemon."""

from __future__ import annotations

import logging
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import h2.errors
import h2.settings
import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import TcpBind
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.server.listen.edge import TELL_EVERY_SECONDS
from ai_ticket_daemon.testing.http import HttpReply, RawClient, Served, serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS
from tests.support.http2_client import Http2Client

if TYPE_CHECKING:
    from pathlib import Path

HTTP = HttpConfig(bind=(TcpBind("127.0.0.1", 0),), max_body_bytes=100_000)
BODY = b'{"content":"a"}'
LIVE = b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n"


def post(*headers: bytes, line: bytes = b"POST /event HTTP/1.1", body: bytes = b"") -> bytes:
    lines = [line, b"host: a", b"content-type: application/json", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(target: bytes, host: bytes | None = b"a", version: bytes = b"1.1") -> bytes:
    line = b"GET " + target + b" HTTP/" + version + b"\r\n"
    return line + (b"" if host is None else b"host: " + host + b"\r\n") + b"\r\n"


CHUNKED = b"transfer-encoding: chunked"
CHUNKS = b"f\r\n" + BODY + b"\r\n0\r\n\r\n"


async def reply_and_end(client: RawClient) -> tuple[HttpReply, bool]:
    """Return an answer, and whether the connection ends with it."""
    reply = await client.reply()
    return reply, await client.at_end()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(
            post(b"content-length: 15", CHUNKED, body=CHUNKS), 400, id="length and encoding"
        ),
        pytest.param(
            post(CHUNKED, b"content-length: 0", body=CHUNKS), 400, id="encoding and length 0"
        ),
        pytest.param(
            post(CHUNKED, line=b"POST /event HTTP/1.0", body=CHUNKS), 400, id="chunked in HTTP/1.0"
        ),
        pytest.param(post(b"transfer-encoding: x, chunked", body=CHUNKS), 501, id="x, chunked"),
        pytest.param(post(b"transfer-encoding: chunked, x", body=CHUNKS), 501, id="chunked, x"),
        pytest.param(post(CHUNKED, CHUNKED, body=CHUNKS), 501, id="chunked twice"),
        pytest.param(post(b"transfer-encoding:\x0bchunked", body=CHUNKS), 400, id="VT chunked"),
        pytest.param(post(b"transfer-encoding : chunked", body=CHUNKS), 400, id="blank in a name"),
        pytest.param(post(b"content-length: 15, 16", body=BODY), 400, id="two lengths in one"),
        pytest.param(
            post(b"content-length: 15", b"content-length: 16", body=BODY), 400, id="two lengths"
        ),
        pytest.param(post(b"content-length: -1"), 400, id="negative length"),
        pytest.param(post(b"content-length: +15", body=BODY), 400, id="length with a sign"),
        pytest.param(post(b"content-length: 0xf", body=BODY), 400, id="hexadecimal length"),
        pytest.param(post(b"content-length: 1_5", body=BODY), 400, id="length with underscore"),
        pytest.param(post(b"content-length: \xb2", body=BODY), 400, id="superscript length"),
        pytest.param(post(b"content-length: " + b"9" * 30), 400, id="length of 30 digits"),
        pytest.param(post(b"content-length:", body=BODY), 400, id="empty length"),
        pytest.param(post(b"x: a\0b", b"content-length: 15", body=BODY), 400, id="NUL"),
        pytest.param(b"GET /live HTTP/1.1\r\n folded\r\nhost: a\r\n\r\n", 400, id="folded first"),
        pytest.param(
            post(b"x: a\r\n\tb", b"content-length: 15", body=BODY), 400, id="folded header"
        ),
        pytest.param(
            post(b"content-length: 15\r\n ", body=BODY), 400, id="length with a folded end"
        ),
        pytest.param(get(b"/live").replace(b"\r\n", b"\n"), 400, id="bare line feeds"),
        pytest.param(get(b"/live", b"a\nx: y"), 400, id="one bare line feed"),
        pytest.param(get(b"/live", b"a\rx: y"), 400, id="bare carriage return"),
        pytest.param(get(b"/live", b"a\r\nx y"), 400, id="field without a colon"),
        pytest.param(get(b"/live", b"a\r\n: y"), 400, id="field without a name"),
        pytest.param(post(b"content-length: 15\x0c", body=BODY), 400, id="length with a form feed"),
        pytest.param(post(b"content-length: 15, ", body=BODY), 400, id="length and nothing"),
        pytest.param(post(b"content-length: %d" % 2**64), 400, id="length of 65 bits"),
        pytest.param(get(b"/live\x7f"), 400, id="DEL in a target"),
        pytest.param(b"GET\t/live HTTP/1.1\r\nhost: a\r\n\r\n", 400, id="tab in a first line"),
        pytest.param(b"GET /live HTTP/1.1 \r\nhost: a\r\n\r\n", 400, id="blank behind a version"),
        pytest.param(get(b"/live", version=b"1.10"), 400, id="HTTP/1.10"),
        pytest.param(get(b"/live", None), 400, id="no Host"),
        pytest.param(b"GET /live HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400, id="two Hosts"),
        pytest.param(b"GET  /live HTTP/1.1\r\nhost: a\r\n\r\n", 400, id="two blanks"),
        pytest.param(b"GET /live\r\nhost: a\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(get(b"/live", version=b"2.0"), 505, id="HTTP/2.0 without its preface"),
        pytest.param(get(b"/live", version=b"3.1"), 505, id="HTTP/3.1"),
        pytest.param(get(b"/\xc3\xa4"), 400, id="path not ASCII"),
        pytest.param(get(b"/live", b"a\r\nx: " + b"y" * 16_384), 431, id="one long header"),
        pytest.param(get(b"/live", b"a" + b"\r\nx: y" * 600), 431, id="many short headers"),
        pytest.param(get(b"/live?" + b"a" * 16_384), 431, id="long first line"),
    ],
)
async def test_a_request_whose_head_is_not_certain_is_refused_and_its_connection_closed(
    request_bytes: bytes, status: int
) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        # What is hidden behind it must never be answered.
        await client.send(request_bytes + LIVE)
        reply, ended = await reply_and_end(client)
        assert (reply.status, reply.json()["error"]) == (status, "invalid_request"), reply
        assert reply.headers["connection"] == "close"
        assert ended
        assert served.pipeline.submissions == []


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(b"1000000000000000000000\r\n" + BODY, id="chunk of 22 digits"),
        pytest.param(b"f" * 17 + b"\r\n" + BODY, id="chunk of 68 bits"),
        pytest.param(b"f\n" + BODY + b"\r\n0\r\n\r\n", id="size that ends with a line feed"),
        pytest.param(b"f\r\n" + BODY + b"\n0\r\n\r\n", id="chunk that ends with a line feed"),
        pytest.param(CHUNKS[:-2] + b"no field\r\n\r\n", id="trailer that is no field"),
        pytest.param(CHUNKS[:-2] + b" x: y\r\n\r\n", id="trailer with a blank before it"),
        pytest.param(b"\r\n" + CHUNKS, id="chunk without a size"),
        pytest.param(b"f;a=b\0\r\n" + CHUNKS[3:], id="NUL in an extension"),
        pytest.param((b"1;" + b"x" * 1000 + b"\r\n{\r\n") * 50, id="an extension for each byte"),
        pytest.param(b"f \x0b\r\n" + BODY, id="bad end of a chunk's line"),
        pytest.param(b"-f\r\n" + BODY, id="negative chunk"),
        pytest.param(b"0xf\r\n" + BODY, id="prefixed chunk"),
        pytest.param(b"f\n" + BODY + b"\n0\n\n" + b" " * 20_000, id="bare line feeds"),
        pytest.param(b"f\r\n" + BODY + b"XX0\r\n\r\n", id="chunk that does not end"),
        pytest.param(b"f;" + b"x" * 1_000_000 + b"\r\n" + BODY, id="extension of 1 MB"),
        pytest.param(CHUNKS[:-2] + b"a: b\r\n" * 200_000 + b"\r\n", id="huge trailers"),
    ],
)
async def test_a_broken_chunk_is_the_end_of_its_request_and_connection(chunks: bytes) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_as_far_as_it_is_taken, client, post(CHUNKED, body=chunks))
            reply, ended = await reply_and_end(client)
        assert reply.status in {400, 431}, reply
        assert ended
        assert served.pipeline.submissions == []


async def _send_as_far_as_it_is_taken(client: RawClient, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send(data)


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(post(b"content-length: 15, 15", body=BODY), id="the same length twice"),
        pytest.param(post(b"transfer-encoding: Chunked", body=CHUNKS), id="Chunked"),
        pytest.param(post(CHUNKED, body=b"f;a=b\r\n" + CHUNKS[3:]), id="extension of a chunk"),
        pytest.param(post(CHUNKED, body=CHUNKS[:-2] + b"x: y\r\n\r\n"), id="trailers"),
    ],
)
async def test_what_can_be_read_in_one_way_only_is_served(request_bytes: bytes) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(request_bytes + LIVE)
        assert (await client.reply()).status == 200
        assert (await client.reply()).json() == {"live": True}


HOSTS_REFUSED = [
    "foo..bar",
    ".foo",
    "a" * 64 + ".example",
    "x." * 130 + "x",
    "foo bar",
    "user@host",
    "user:secret@host:80",
    "host:http",
    "host:99999",
    "host:1:2",
    "[::1",
    "::1",
    "[::1]x",
    "[nonsense]",
    "[fe80::1%]",
    "a/b",
    "a?b",
    "<script>",
    "a%zz",
    "a,b@c",
]
HOSTS_SERVED = [
    "",
    "a",
    "localhost:5000",
    "example.com.",
    "my_service:80",
    "xn--bcher-kva.example",
    "a" * 63 + ".example",
    "127.0.0.1:",
    "[::1]",
    "[::ffff:192.0.2.1]:443",
    "[fe80::1%25eth0]:5000",
    "[fe80::1%eth0]",
    "a%20b",
]


@pytest.mark.parametrize("host", HOSTS_REFUSED)
@pytest.mark.parametrize("path", ["/live", "/event", "/nothing"])
async def test_a_host_that_is_none_is_refused_as_the_mistake_of_the_client(
    host: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(get(path.encode(), host.encode()))
        reply = await client.reply()
        assert (reply.status, reply.json()["error"]) == (400, "invalid_request")
        second = await Http2Client.open(served)
        answered = await second.answer(await second.ask(pseudo={"authority": host, "path": path}))
        assert (answered.status, answered.json()["error"]) == (400, "invalid_request")
        await client.send(LIVE)
        assert (await client.reply()).status == 200
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("host", HOSTS_SERVED)
async def test_a_host_is_served_whatever_it_is_called(host: str) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(get(b"/live", host.encode()))
        assert (await client.reply()).status == 200
        if host:
            await client.send(get(b"http://" + host.encode() + b"/live", b"other"))
            assert (await client.reply()).status == 200
        second = await Http2Client.open(served)
        assert (await second.answer(await second.ask(pseudo={"authority": host}))).status == 200


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "//live", 404),
        ("GET", "/%2flive", 404),
        ("GET", "%2flive", 404),
        ("GET", "/%6cive", 404),
        ("GET", "/live/", 404),
        ("GET", "/live;a=b", 404),
        ("GET", "/LIVE", 404),
        ("GET", "/./live", 404),
        ("GET", "/x/../live", 404),
        ("GET", "/live%00", 404),
        ("GET", "/live%", 404),
        ("GET", "/event/%2e%2e", 404),
        ("GET", "/event/a/b", 404),
        ("GET", "/event/a%2fb", 404),
        ("GET", "/event/{event_id}", 404),
        ("GET", "*", 404),
        ("GET", "live", 404),
        ("GET", "http://a.example/live", 200),
        ("GET", "HTTP://a.example:80/live", 200),
        ("GET", "http://a.example//live", 404),
        ("GET", "http://a.example", 404),
        ("GET", "http://foo..bar/live", 400),
        ("GET", "http:///live", 400),
        ("GET", "http://user@a.example/live", 400),
        ("GET", "http://[", 400),
        ("GET", "ftp://a.example/live", 404),
        ("GET", "/live?", 200),
        ("GET", "/live?%", 200),
        ("GET", "/live?a=%ff;&&=&%00", 200),
        ("get", "/live", 405),
        ("Get", "/live", 405),
        ("hEAD", "/live", 405),
        ("head", "/live", 405),
        ("post", "/event", 405),
        ("CONNECT", "/live", 405),
    ],
)
async def test_paths_and_methods_are_exact(method: str, target: str, status: int) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(f"{method} {target} HTTP/1.1\r\nhost: a\r\n\r\n".encode() + LIVE)
        assert (await client.reply()).status == status
        # The next answer begins where this one ended.
        if method != "CONNECT":
            assert (await client.reply()).json() == {"live": True}
            second = await Http2Client.open(served)
            answered = await second.answer(
                await second.ask(pseudo={"method": method, "path": target})
            )
            assert answered.status == status
            assert answered.body.startswith(b"{")
    assert all(
        recorded.start.method in {"GET", "CONNECT", "OTHER"}
        for recorded in served.observer.requests
    )


async def test_empty_lines_before_a_request_are_skipped() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        request = post(b"content-length: 15", body=BODY)
        for before in (b"\r\n", b"\r\n\r\n\r\n", b"\n"):
            # Old clients send an empty line behind a body.
            await client.send(before + request + b"\r\n" + LIVE)
            assert (await client.reply()).status == 200
            assert (await client.reply()).json() == {"live": True}
        for byte in b"\r\n\r\n" + LIVE:
            await client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert (await client.reply()).json() == {"live": True}
        await client.send(b"\r\r\n" + LIVE)
        assert (await client.reply()).status == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(post(b"content-length: 100001"), 413, id="announced as too long"),
        pytest.param(
            b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-length: 15\r\n\r\n", 415, id="no type"
        ),
        pytest.param(post(b"content-length: 15", line=b"POST /no HTTP/1.1"), 404, id="no route"),
        pytest.param(post(b"content-length: 15", line=b"PUT /event HTTP/1.1"), 405, id="method"),
        pytest.param(post(b"content-length: 15", b"authorization: Bearer x"), 401, id="token"),
        pytest.param(post(b"content-length: 15", b"idempotency-key: \xff"), 422, id="key"),
    ],
)
async def test_nobody_is_asked_for_a_body_that_is_going_to_be_refused(
    head: bytes, status: int, tmp_path: Path
) -> None:
    token = "a-token-a-token-a-token"
    auth = AuthConfig(Tokens(tmp_path, parse_tokens(f"bot:{token}")))
    async with serving(HTTP, auth=auth) as served:
        client = await served.connect()
        head = head.replace(b"host: a\r\n", b"host: a\r\nexpect: 100-continue\r\n")
        if status != 401:
            head = head.replace(b"host: a", b"host: a\r\nx-api-key: " + token.encode())
        await client.send(head)
        reply, ended = await reply_and_end(client)
        assert reply.status == status
        assert ended


@pytest.mark.parametrize("path", ["/event", "/events"])
async def test_a_client_that_waits_to_be_asked_is_asked_for_its_body_once(path: str) -> None:
    body = BODY if path == "/event" else b"[" + BODY + b"]"
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(
            post(
                b"expect: 100-continue",
                b"content-length: %d" % len(body),
                line=b"POST %s HTTP/1.1" % path.encode(),
            )
        )
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        await client.send(body)
        assert (await client.reply()).status == 200
        second = await Http2Client.open(served)
        stream_id = await second.ask(
            ("content-type", "application/json"),
            ("expect", "100-continue"),
            pseudo={"method": "POST", "path": path},
            end=False,
        )
        while not second.streams[stream_id].informational:
            await second.receive()
        second.connection.send_data(stream_id, body, end_stream=True)
        await second.flush()
        answered = await second.answer(stream_id)
        assert (answered.informational, answered.status) == ([100], 200)


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"POST"])
async def test_an_upgrade_to_http2_is_not_taken_up(method: bytes) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        for settings in (b"AAMAAABkAAQAAP__", b"%%%", b""):
            await client.send(
                method + b" /live HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\n"
                b"upgrade: h2c\r\nhttp2-settings: " + settings + b"\r\ncontent-length: 0\r\n\r\n"
            )
            assert (await client.reply()).status == (200 if method == b"GET" else 405)


async def test_tunnels_are_neither_offered_nor_opened_over_http2() -> None:
    async with serving(HTTP) as served:
        client = await Http2Client.open(served)
        assert (await client.answer(await client.ask())).status == 200
        assert not client.settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
        for pseudo in ({"protocol": "websocket"}, {"path": None, "scheme": None}):
            other = await Http2Client.open(served)
            answered = await other.answer(await other.ask(pseudo={"method": "CONNECT", **pseudo}))
            assert answered.status is None
            assert answered.reset == h2.errors.ErrorCodes.PROTOCOL_ERROR or other.goaway


@pytest.mark.parametrize("length", [16_000, 17_000, 40_000, 100_000])
async def test_the_headers_of_http2_have_the_same_bound(length: int) -> None:
    async with serving(HTTP) as served:
        client = await Http2Client.open(served)
        for fields, path in (
            ([("x", "y" * length)], "/live"),
            ([], "/live?" + "y" * length),
            ([("x", "")] * (length // 33), "/live"),
        ):
            answered = await client.answer(await client.ask(*fields, pseudo={"path": path}))
            if length > 65_536:
                assert answered.status == 431 or client.goaway
                client = await Http2Client.open(served)
            else:
                assert answered.status == (200 if length < 16_384 else 431)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream_id)
        + payload
    )


PRIORITIES = b"".join(frame(2, 0, 2 * i + 1, struct.pack(">IB", 0, 1)) for i in range(1, 3000))
LOOP = frame(2, 0, 3, struct.pack(">IB", 5, 1)) + frame(2, 0, 5, struct.pack(">IB", 3, 1))


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(PRIORITIES, id="3000 priorities"),
        pytest.param(LOOP * 100, id="priority loop"),
        pytest.param(frame(2, 0, 1, struct.pack(">IB", 1, 1)), id="depends on itself"),
        pytest.param(frame(2, 0, 0, struct.pack(">IB", 1, 1)), id="priority of nothing"),
        pytest.param(frame(2, 0, 1, b"123"), id="short priority"),
        pytest.param(frame(4, 0, 0, b"12345"), id="short setting"),
        pytest.param(frame(4, 0, 0, struct.pack(">HI", 4, 2**32 - 1)), id="huge window"),
        pytest.param(frame(4, 0, 0, struct.pack(">HI", 5, 1)), id="tiny frames"),
        pytest.param(frame(4, 1, 0, b""), id="acknowledgement of nothing"),
        pytest.param(frame(8, 0, 0, struct.pack(">I", 0)), id="window of nothing"),
        pytest.param(frame(8, 0, 0, struct.pack(">I", 2**31 - 1)) * 2, id="window overflow"),
        pytest.param(frame(0, 0, 1, b"x"), id="data of nothing"),
        pytest.param(frame(0, 8, 1, b"\xff"), id="padding beyond the frame"),
        pytest.param(frame(1, 4, 1, b"\xff" * 20), id="headers that cannot be read"),
        pytest.param(frame(1, 4, 1, b""), id="no headers"),
        pytest.param(frame(1, 4, 2, b"\x82\x86\x84\x41\x01a"), id="even stream"),
        pytest.param(frame(1, 0, 1, b"\x82") + frame(6, 0, 0, b"12345678"), id="interrupted"),
        pytest.param(frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 3000, id="continuations"),
        pytest.param(frame(3, 0, 1, b"1234"), id="reset of nothing"),
        pytest.param(frame(5, 4, 1, b"1234"), id="push"),
        pytest.param(frame(7, 0, 0, b"12345678" + b"x" * 9000), id="goaway"),
        pytest.param(frame(200, 255, 77, b"x" * 99), id="unknown frame"),
        pytest.param(b"\xff" * 50, id="noise"),
        pytest.param(frame(6, 0, 0, b"12345678") * 3000, id="pings"),
        pytest.param(
            b"".join(
                frame(1, 5, 2 * i + 1, b"\x82\x86\x84\x41\x01a")
                + frame(3, 0, 2 * i + 1, struct.pack(">I", 8))
                for i in range(2500)
            ),
            id="2500 requests reset at once",
        ),
    ],
)
async def test_frames_that_make_no_sense_cost_a_connection_and_no_line_above_info(
    frames: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "ai_ticket_daemon.server")
    began_at = trio.current_time()
    async with serving(HTTP) as served:
        for _ in range(3):
            client = await Http2Client.open(served)
            with trio.fail_after(GUARD_SECONDS):
                try:
                    await client.stream.send_all(frames)
                    await client.stream.send_eof()
                    while await client.stream.receive_some(65_536):
                        pass
                except trio.BrokenResourceError:
                    pass
        await assert_alive(served)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert len(caplog.records) <= 1 + (trio.current_time() - began_at) / TELL_EVERY_SECONDS
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "pseudo",
    [
        {"path": ""},
        {"path": None},
        {"path": "/ä"},
        {"path": "/live\0"},
        {"path": "live"},
        {"method": ""},
        {"method": None},
        {"method": "G\u00c9T"},
        {"scheme": None},
        {"scheme": "nonsense"},
        {"authority": None},
        {"nonsense": "a"},
        {"status": "200"},
    ],
    ids=repr,
)
async def test_pseudo_headers_that_make_no_sense_are_the_mistake_of_the_client(
    pseudo: dict[str, str | None], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(HTTP) as served:
        client = await Http2Client.open(served)
        answered = await client.answer(await client.ask(pseudo=pseudo))
        assert answered.status is None or answered.status < 500
        await assert_alive(served)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_thousand_mistakes_are_a_few_lines_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ai_ticket_daemon.server")
    async with serving(HTTP) as served:
        for _ in range(200):
            client = await served.connect()
            await client.send(b"nonsense\r\n\r\n")
            assert (await client.reply()).status == 400
            await client.stream.aclose()
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "1 connection refused: malformed"
    # One for each of the few seconds that this takes at the most.
    assert len(told) < 10


async def assert_alive(served: Served) -> None:
    client = await served.connect()
    await client.send(LIVE)
    assert (await client.reply()).status == 200
    await client.stream.aclose()
