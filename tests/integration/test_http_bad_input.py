"""Each mistake a client can make: its status, code and shape, and a server that goes on."""

from __future__ import annotations

import dataclasses
import json

import pytest
import trio

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import TcpBind
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.testing.http import HttpReply, RawClient, Served, serving

HTTP = HttpConfig(
    bind=(TcpBind("127.0.0.1", 0),),
    max_body_bytes=100_000,
    header_timeout_seconds=5.0,
    body_timeout_seconds=5.0,
)


def post(body: bytes, *headers: bytes, content_type: bytes | None = b"application/json") -> bytes:
    lines = [b"POST /event HTTP/1.1", b"host: a", b"content-length: %d" % len(body), *headers]
    if content_type is not None:
        lines.append(b"content-type: " + content_type)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def content(value: object, **fields: object) -> bytes:
    return post(json.dumps({"content": value, **fields}).encode())


def assert_refused(reply: HttpReply, status: int, code: str) -> None:
    assert (reply.status, reply.json().get("error")) == (status, code), reply
    assert reply.headers["content-type"] == "application/json"
    assert reply.json().keys() == {"error", "message", "details", "event_id", "trace_id"}
    assert reply.json()["message"].endswith(".")


async def assert_alive(served: Served) -> None:
    client = await served.connect()
    await client.send(content("a"))
    assert (await client.reply()).status == 200
    await client.stream.aclose()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        pytest.param(post(b""), 400, "invalid_request", id="empty body"),
        pytest.param(post(b"{"), 400, "invalid_request", id="broken JSON"),
        pytest.param(post(b'{"content": "\xff"}'), 400, "invalid_request", id="not UTF-8"),
        pytest.param(post(b"[1]"), 400, "invalid_request", id="a list"),
        pytest.param(post(b"null"), 400, "invalid_request", id="null"),
        pytest.param(post(b"[" * 90_000), 400, "invalid_request", id="deep"),
        pytest.param(
            post(b'{"content":' + b"[" * 65 + b"]" * 65 + b"}"), 400, "invalid_request", id="nested"
        ),
        pytest.param(post(b'{"content": NaN}'), 400, "invalid_request", id="NaN"),
        pytest.param(
            post(b'{"content": "a", "seed": ' + b"1" * 5000 + b"}"),
            400,
            "invalid_request",
            id="long integer",
        ),
        pytest.param(post(b"{}"), 400, "missing_content_field", id="no content"),
        pytest.param(content(None), 400, "missing_content_field", id="null content"),
        pytest.param(content(5), 400, "invalid_input_format", id="number"),
        pytest.param(content("a\0"), 400, "invalid_input_format", id="NUL"),
        pytest.param(
            post(rb'{"content": "\ud800"}'), 400, "invalid_input_format", id="half a surrogate pair"
        ),
        pytest.param(content("  "), 422, "prompt_extraction_failed", id="blank"),
        pytest.param(content({}), 422, "prompt_extraction_failed", id="empty object"),
        pytest.param(content("a" * 300_000), 413, "payload_too_large", id="long body"),
        pytest.param(
            post(b'{"content": "a", "max_tokens": 1e400}'), 422, "invalid_parameter", id="infinity"
        ),
        pytest.param(content("a", max_tokens=True), 422, "invalid_parameter", id="boolean"),
        pytest.param(content("a", priority=10), 422, "invalid_parameter", id="priority"),
        pytest.param(
            post(b'{"content": "a", "metadata": {"a": 1e400}}'),
            422,
            "invalid_parameter",
            id="infinite metadata",
        ),
        pytest.param(
            post(b"content=a", content_type=b"application/x-www-form-urlencoded"),
            415,
            "unsupported_media_type",
            id="form",
        ),
        pytest.param(
            post(b"{}", content_type=None), 415, "unsupported_media_type", id="no content type"
        ),
        pytest.param(
            post(b"{}", b"content-encoding: gzip"), 415, "unsupported_media_type", id="gzip"
        ),
        pytest.param(b"GET /nope HTTP/1.1\r\nhost: a\r\n\r\n", 404, "not_found", id="no route"),
        pytest.param(b"GET /live/ HTTP/1.1\r\nhost: a\r\n\r\n", 404, "not_found", id="slash"),
        pytest.param(b"GET /./live HTTP/1.1\r\nhost: a\r\n\r\n", 404, "not_found", id="dot"),
        pytest.param(b"GET /%00%ff HTTP/1.1\r\nhost: a\r\n\r\n", 404, "not_found", id="odd path"),
        pytest.param(b"GET ?a=b HTTP/1.1\r\nhost: a\r\n\r\n", 404, "not_found", id="no path"),
        pytest.param(
            b"GET http://[ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request", id="bad URL"
        ),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", 404, "not_found", id="asterisk"),
        pytest.param(
            b"GET /live HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            400,
            "invalid_request",
            id="2 hosts",
        ),
        pytest.param(b"nonsense\r\n\r\n", 400, "invalid_request", id="not HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "invalid_request", id="TLS"),
        pytest.param(
            b"GET /live HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 20_000,
            431,
            "invalid_request",
            id="long headers",
        ),
        pytest.param(post(b"{}", b"content-length: 7"), 400, "invalid_request", id="two lengths"),
        pytest.param(
            b"POST /event HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
            501,
            "invalid_request",
            id="transfer encoding",
        ),
        pytest.param(
            b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\nnonsense\r\n",
            400,
            "invalid_request",
            id="broken chunk",
        ),
        pytest.param(
            b"GET /event HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: YQ==\r\n\r\n",
            405,
            "method_not_allowed",
            id="WebSocket",
        ),
    ],
)
async def test_a_mistake_is_answered_precisely_and_the_server_goes_on(
    request_bytes: bytes, status: int, code: str
) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(request_bytes)
        assert_refused(await client.reply(), status, code)
        await assert_alive(served)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/event", "POST"),
        ("HEAD", "/event", "POST"),
        ("OPTIONS", "/event", "POST"),
        ("POST", "/live", "GET, HEAD"),
        ("EVIL", "/health", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: str) -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(f"{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        if method == "HEAD":
            head = await client.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 405")
            assert b"allow: POST" in head
            return
        reply = await client.reply()
        assert_refused(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == allowed
        (request,) = served.observer.requests
        assert request.start.method in {method, "OTHER"}


async def test_a_target_with_scheme_and_host_is_understood() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(b"GET http://elsewhere/live?a=b" + b" HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.reply()).status == 200
        (request,) = served.observer.requests
        assert request.start.route == "/live"


async def test_a_connection_survives_a_mistake_in_a_body() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(post(b"{"))
        assert_refused(await client.reply(), 400, "invalid_request")
        await client.send(content("a"))
        assert (await client.reply()).status == 200


async def test_a_body_announced_as_too_long_is_refused_before_it_is_sent() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(
            b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"content-length: 100001\r\n\r\n"
        )
        reply = await client.reply()
        assert_refused(reply, 413, "payload_too_large")
        assert reply.headers["connection"] == "close"


async def test_a_client_that_sends_its_long_body_first_still_reads_the_answer() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        body = b'{"content": "' + b"a" * 8_000_000 + b'"}'
        await client.send(post(body))
        assert_refused(await client.reply(), 413, "payload_too_large")
        await assert_alive(served)


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_long() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(
            b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for _ in range(3):
            await client.send(b"c350\r\n" + b" " * 0xC350 + b"\r\n")
        assert_refused(await client.reply(), 413, "payload_too_large")
        await assert_alive(served)


async def test_a_body_in_many_small_chunks_is_read() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        body = json.dumps({"content": "a" * 2000}).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        await client.send(
            b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        )
        assert (await client.reply()).status == 200


async def test_a_body_that_does_not_arrive_times_out() -> None:
    async with serving(dataclasses.replace(HTTP, body_timeout_seconds=0.1)) as served:
        client = await served.connect()
        await client.send(post(b'{"content": "a"}')[:-5])
        assert_refused(await client.reply(), 408, "request_timeout")
        assert await client.at_end()
        await assert_alive(served)


async def test_headers_that_do_not_arrive_time_out_even_if_they_drip() -> None:
    async with serving(dataclasses.replace(HTTP, header_timeout_seconds=0.3)) as served:
        client = await served.connect()

        async def drip() -> None:
            await client.send(b"GET /live HTTP/1.1\r\n")
            while True:
                await client.send(b"x: y\r\n")
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert_refused(await client.reply(), 408, "request_timeout")
            nursery.cancel_scope.cancel()
        await assert_alive(served)


@pytest.mark.parametrize("before", [b"", b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n"])
async def test_a_connection_that_asks_for_nothing_is_closed(before: bytes) -> None:
    async with serving(dataclasses.replace(HTTP, header_timeout_seconds=0.1)) as served:
        client = await served.connect()
        if before:
            await client.send(before)
            assert (await client.reply()).status == 200
        assert await client.at_end()


async def test_expect_continue_is_answered_with_continue() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        request = post(b'{"content": "a"}', b"expect: 100-continue")
        await client.send(request[:-16])
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await client.send(request[-16:])
        assert (await client.reply()).status == 200


async def test_http_10_is_served_and_the_connection_closed() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        await client.send(b"GET /live HTTP/1.0\r\n\r\n")
        assert (await client.reply()).status == 200
        assert await client.at_end()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        get = b"GET /%s HTTP/1.1\r\nhost: a\r\n\r\n"
        await client.send(
            get % b"live" + content("a") + get % b"nope" + content("b") + get % b"live"
        )
        statuses = [(await client.reply()).status for _ in range(5)]
        assert statuses == [200, 200, 404, 200, 200]


async def test_more_than_fits_the_pipeline_is_answered_all_the_same() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        request = content("a" * 50_000)

        async def send_all(raw: RawClient) -> None:
            for _ in range(20):
                await raw.send(request)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, client)
            for _ in range(20):
                assert (await client.reply()).status == 200


async def test_whoever_looks_on_is_told_what_was_refused_for_what_it_says_only() -> None:
    async with serving(HTTP) as served:
        client = await served.connect()
        for request in (
            post(b"{no json"),
            post(b"{}", content_type=b"text/plain"),
            post(b""),
            b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n",
            content("a"),
        ):
            await client.send(request)
            await client.reply()
        refusals = [recorded.refusals for recorded in served.observer.requests]
    assert refusals == [[(ErrorCode.INVALID_REQUEST, b"{no json")], [], [], [], []]
