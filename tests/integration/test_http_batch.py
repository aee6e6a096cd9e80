"""Many events in one request: each answered in its place, at once, or as it completes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.errors import ErrorCode, RequestRefused, StoreUnavailable
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.testing.http import Served, serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, ScriptedPipeline, succeeded

if TYPE_CHECKING:
    from collections.abc import Sequence

NDJSON = "application/x-ndjson"
ASYNC = {"prefer": "respond-async"}


def client_of(served: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=served.url, timeout=GUARD_SECONDS)


def held() -> ScriptedPipeline:
    """Return a pipeline that leaves the end of each event to the test."""
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    return pipeline


def as_lines(items: Sequence[object]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def of_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line]


async def post(
    client: httpx.AsyncClient, items: Sequence[object], /, **headers: str
) -> httpx.Response:
    """Send a batch as an array."""
    return await client.post("/events", json=items, headers=named(headers))


async def post_lines(
    client: httpx.AsyncClient, items: Sequence[object], /, **headers: str
) -> httpx.Response:
    """Send a batch as NDJSON."""
    lines = named(headers) | {"content-type": NDJSON}
    return await client.post("/events", content=as_lines(items), headers=lines)


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def read_line(client: Any) -> Any:
    """Return the next line of a chunked response that is not blank."""
    while True:
        line = (await client.until(b"\n")).strip()
        if line.startswith(b"{"):
            return json.loads(line)


def raw(body: bytes, *headers: bytes) -> bytes:
    lines = [
        b"POST /events HTTP/1.1",
        b"host: a",
        b"content-type: application/x-ndjson",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


BAD_ITEMS = [
    ({"content": "a", "max_tokens": 0}, 422, "invalid_parameter"),
    ({}, 400, "missing_content_field"),
    ({"content": 5}, 400, "invalid_input_format"),
    ({"content": " "}, 422, "prompt_extraction_failed"),
    ([], 400, "invalid_request"),
    (None, 400, "invalid_request"),
    ("text", 400, "invalid_request"),
    ({"content": "a", "stream": True}, 422, "invalid_parameter"),
    ({"content": "a" * 300_000}, 413, "payload_too_large"),
]


async def test_a_bad_field_in_a_line_is_told_with_the_line_and_in_an_item_by_its_index() -> None:
    items = [{"content": "a"}, {"content": "b", "max_tokens": 0}, {"content": "c", "stream": True}]
    async with serving() as served, client_of(served) as client:
        lines = (await post_lines(client, items)).json()
        listed = (await post(client, items)).json()
    assert [answer["status"] for answer in lines] == [200, 422, 422]
    for answer, same, line in zip(lines[1:], listed[1:], (2, 3), strict=True):
        assert answer["message"] == f"Line {line}: {same['message']}"
        assert answer["details"] == same["details"] | {"line": line}
        assert "line" not in same["details"]


@pytest.mark.parametrize("send", [post, post_lines])
async def test_each_event_is_answered_in_its_place(send: Any) -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        replies: list[httpx.Response] = []

        async def ask() -> None:
            items = [{"content": name, "metadata": {"n": name}} for name in "abc"]
            replies.append(await send(client, items))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await served.pipeline.submission(3)
            first, second, third = served.pipeline.submissions
            # They end in another order, and one of them badly.
            third.end(succeeded("C"))
            first.end(succeeded("A"))
            second.end(Failed(ErrorCode.API_TIMEOUT, "Slow."))
        ended = await served.observer.only()
    (reply,) = replies
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    good, bad, last = reply.json()
    assert (good["index"], good["status"], good["completion"]) == (0, 200, "A")
    assert (good["event_id"], good["metadata"]) == (first.event_id, {"n": "a"})
    assert bad == {
        "index": 1,
        "status": 504,
        "error": "api_timeout",
        "message": "Slow.",
        "details": None,
        "event_id": second.event_id,
        "trace_id": bad["trace_id"],
    }
    assert (last["index"], last["status"], last["completion"]) == (2, 200, "C")
    assert (ended.route, ended.status, ended.error, ended.event_id) == ("/events", 200, None, None)


@pytest.mark.parametrize("send", [post, post_lines])
@pytest.mark.parametrize("prefer", ["", "respond-async", "respond-async, wait=10"])
async def test_what_is_wrong_with_one_event_keeps_no_other_back(send: Any, prefer: str) -> None:
    items: list[object] = [{"content": "first"}]
    for item, _, _ in BAD_ITEMS:
        items += [item, {"content": "between"}]
    async with serving() as served, client_of(served) as client:
        reply = await send(client, items, prefer=prefer)
    good = 202 if prefer else 200
    assert reply.status_code == good
    assert reply.headers.get("preference-applied") == ("respond-async" if prefer else None)
    answers = reply.json()
    assert [answer["index"] for answer in answers] == list(range(len(items)))
    assert [answer["status"] for answer in answers[::2]] == [good] * (len(BAD_ITEMS) + 1)
    for (_, status, code), answer in zip(BAD_ITEMS, answers[1::2], strict=True):
        assert (answer["status"], answer["error"]) == (status, code)
        assert answer["event_id"] is None
        assert answer.keys() == {
            "index", "status", "error", "message", "details", "event_id", "trace_id",
        }  # fmt: skip
    assert len(served.pipeline.submissions) == len(BAD_ITEMS) + 1


async def test_a_batch_of_nothing_but_mistakes_submits_nothing() -> None:
    for headers in ({}, ASYNC, {"accept": NDJSON}):
        async with serving() as served, client_of(served) as client:
            reply = await post(client, [item for item, _, _ in BAD_ITEMS], **headers)
        answers = of_lines(reply.text) if "accept" in headers else reply.json()
        assert [answer["status"] for answer in answers] == [status for _, status, _ in BAD_ITEMS]
        assert served.pipeline.submissions == []


async def test_a_line_that_is_no_json_is_answered_in_its_place() -> None:
    body = b'{"content": "a"}\n{"content": \n\n\xff\n  {"content": "b"}\r\n{"content": "c"}'
    async with serving() as served, client_of(served) as client:
        reply = await client.post(
            "/events", content=body, headers={"content-type": NDJSON, **ASYNC}
        )
    assert [answer["status"] for answer in reply.json()] == [202, 400, 400, 202, 202]
    assert [answer["index"] for answer in reply.json()] == [0, 1, 2, 3, 4]


async def test_a_client_that_does_not_wait_gets_the_ids_at_once() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        reply = await post_lines(client, [{"content": str(n)} for n in range(1000)], **ASYNC)
        ids = [submission.event_id for submission in served.pipeline.submissions]
        lines = await post(client, [{"content": "a"}], accept=NDJSON, **ASYNC)
    assert reply.status_code == 202
    assert reply.json() == [
        {
            "index": index,
            "status": 202,
            "event_id": event_id,
            "state": "queued",
            "position": 3,
            "estimated_start": "2025-11-25T18:40:00.250Z",
        }
        for index, event_id in enumerate(ids)
    ]
    assert len(set(ids)) == 1000
    contents = [one.event.messages[0].content for one in served.pipeline.submissions[:1000]]
    assert contents == [str(n) for n in range(1000)]
    assert lines.status_code == 202
    assert lines.headers["content-type"] == NDJSON
    assert [line["status"] for line in of_lines(lines.text)] == [202]


async def test_each_completion_is_written_when_it_is_there() -> None:
    async with serving(pipeline=held(), heartbeat_seconds=0.05) as served:
        client = await served.connect()
        items = [{"content": "a"}, {"content": "b"}, {}, {"content": "c"}]
        await client.send(raw(as_lines(items), b"accept: application/x-ndjson"))
        await served.pipeline.submission(3)
        first, second, third = served.pipeline.submissions
        second.end(succeeded("B"))
        head = await client.until(b"\r\n\r\n")
        assert b"200" in head.splitlines()[0]
        assert b"content-type: application/x-ndjson" in head
        assert b"x-accel-buffering: no" in head
        # What was wrong from the start comes first.
        bad, well = await read_line(client), await read_line(client)
        assert (bad["index"], bad["error"]) == (2, "missing_content_field")
        assert (well["index"], well["status"], well["completion"]) == (1, 200, "B")
        # Silences are filled with blank lines.
        for _ in range(3):
            await client.until(b"1\r\n\n\r\n")
        first.end(Failed(ErrorCode.DEADLINE_EXCEEDED, "Late."))
        failed = await read_line(client)
        assert (failed["index"], failed["status"], failed["error"]) == (0, 504, "deadline_exceeded")
        assert failed["event_id"] == first.event_id
        third.end(succeeded("C"))
        last = await read_line(client)
        assert (last["index"], last["completion"]) == (3, "C")
        await client.until(b"0\r\n\r\n")
        # The connection is good for another request.
        await client.send(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.reply()).status == 200
    assert not any(one.abandoned.is_set() for one in served.pipeline.submissions)


@pytest.mark.parametrize("headers", [{}, ASYNC, {"accept": NDJSON}])
@pytest.mark.parametrize(
    "refusal",
    [
        RequestRefused(ErrorCode.QUEUE_FULL, "Full.", retry_after_seconds=7),
        RequestRefused(ErrorCode.DRAINING, "Stopping."),
        StoreUnavailable("The disk is full."),
    ],
)
async def test_what_is_refused_as_a_whole_has_its_own_status(
    refusal: RequestRefused, headers: dict[str, str]
) -> None:
    pipeline = ScriptedPipeline()
    pipeline.refusal = refusal
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await post(client, [{"content": "a"}, {}], **headers)
        ended = await served.observer.only()
    assert reply.status_code == ended.status == 503
    assert reply.json()["error"] == ended.error == refusal.code
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("headers", [{}, ASYNC, {"accept": NDJSON}])
async def test_a_crash_is_an_internal_error_and_the_server_goes_on(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = ScriptedPipeline()
    pipeline.crash = ZeroDivisionError("secret")
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await post(client, [{"content": "a"}], **headers)
        assert reply.status_code == 500
        assert reply.json()["error"] == "internal_error"
        assert "secret" not in reply.text
        assert len(caplog.records) == 1
        assert (await client.get("/live")).status_code == 200


async def test_a_stream_that_breaks_off_still_answers_every_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        items = [{"content": name} for name in "abc"]
        await client.send(raw(as_lines(items), b"accept: application/x-ndjson"))
        await served.pipeline.submission(3)
        first, second, third = served.pipeline.submissions
        second.end(succeeded("B"))
        answers = [await read_line(client)]
        first.fall_over(ZeroDivisionError("secret"))
        answers += [await read_line(client) for _ in range(2)]
        assert await client.until(b"0\r\n\r\n") == b"\r\n0\r\n\r\n"
        with trio.fail_after(GUARD_SECONDS):
            await third.abandoned.wait()
    assert [(answer["index"], answer["status"]) for answer in answers] == [
        (1, 200),
        (0, 500),
        (2, 500),
    ]
    assert "secret" not in json.dumps(answers)
    assert len(caplog.records) == 1


async def test_each_event_of_a_batch_has_a_key_of_its_own() -> None:
    items = [{"content": "a"}, {}, {"content": "b"}]
    async with serving() as served, client_of(served) as client:
        first = (await post(client, items, idempotency_key="night", **ASYNC)).json()
        again = (await post_lines(client, items, idempotency_key="night", **ASYNC)).json()
        assert [one["event_id"] for one in first] == [one["event_id"] for one in again]
        keys = [one.event.idempotency_key for one in served.pipeline.submissions[:2]]
        assert keys == ["night/0", "night/2"]
        waited = (await post(client, items, idempotency_key="night")).json()
        assert [one["event_id"] for one in waited] == [one["event_id"] for one in first]
        # Another payload is a conflict of that event alone.
        items[2] = {"content": "c"}
        for headers in (ASYNC, {}):
            reply = await post(client, items, idempotency_key="night", **headers)
            statuses = [one["status"] for one in reply.json()]
            assert statuses == [202 if headers else 200, 400, 409]
            assert reply.json()[2]["error"] == "idempotency_conflict"
            assert reply.json()[2]["event_id"] is None


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_request"),
        (b"", NDJSON, 400, "invalid_request"),
        (b"\n \r\n", NDJSON, 400, "invalid_request"),
        (b"[]", "application/json", 400, "invalid_request"),
        (b'{"content": "a"}', "application/json", 400, "invalid_request"),
        (b'[{"content": "a"}', "application/json", 400, "invalid_request"),
        (b"[" * 90, "application/json", 400, "invalid_request"),
        (b"[1,2,3,4]", "application/json", 413, "payload_too_large"),
        (b"1\n2\n3\n4\n", NDJSON, 413, "payload_too_large"),
        (b'["' + b"a" * 5000 + b'"]', "application/json", 413, "payload_too_large"),
        (b"[1]", "text/plain", 415, "unsupported_media_type"),
        (b"[1]", "", 415, "unsupported_media_type"),
        (b"[1]", "application/x-ndjson; charset=utf-16", 415, "unsupported_media_type"),
    ],
)
async def test_what_is_no_batch_is_refused_as_a_whole(
    body: bytes, content_type: str, status: int, code: str
) -> None:
    limits = EventsConfig(max_batch=3, max_batch_bytes=4000)
    async with serving(events=limits) as served, client_of(served) as client:
        reply = await client.post("/events", content=body, headers={"content-type": content_type})
        assert (reply.status_code, reply.json()["error"]) == (status, code)
        assert (await client.get("/live")).status_code == 200
    assert served.pipeline.submissions == []


async def test_a_batch_has_a_limit_of_its_own_that_a_reload_changes() -> None:
    async with serving() as served, client_of(served) as client:
        served.http = dataclasses.replace(served.http, max_body_bytes=100)
        items = [{"content": "a" * 1000}]
        assert (await post(client, items)).status_code == 200
        served.events = dataclasses.replace(served.events, max_batch_bytes=100)
        refused = await post(client, items)
        assert refused.status_code == 413
        assert "events.max_batch_bytes" in refused.json()["message"]


async def test_a_batch_counts_as_one_request() -> None:
    limit = RateLimitConfig(2, 3600.0)
    async with serving(rate_limit=limit) as served, client_of(served) as client:
        replies = [await post(client, [{"content": "a"}] * 100, **ASYNC) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [202, 202, 429]
    assert replies[0].headers["ratelimit-remaining"] == "1"
    assert len(served.pipeline.submissions) == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_batch_can_only_be_posted(method: str) -> None:
    async with serving() as served, client_of(served) as client:
        reply = await client.request(method, "/events")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("headers", [[], [b"accept: application/x-ndjson"]])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_abandons_what_has_not_ended(
    headers: list[bytes], begun: bool
) -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(raw(as_lines([{"content": name} for name in "abc"]), *headers))
        await served.pipeline.submission(3)
        first, second, third = served.pipeline.submissions
        if begun:
            second.end(succeeded("B"))
            if headers:
                await client.until(b'"B"')
        await client.stream.aclose()
        with trio.fail_after(GUARD_SECONDS):
            await first.abandoned.wait()
            await third.abandoned.wait()
        ended = await served.observer.only()
        assert ended.error is ErrorCode.CANCELLED
        if begun and headers:
            assert not second.abandoned.is_set()


async def test_a_client_that_leaves_after_handing_over_abandons_nothing() -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(raw(as_lines([{"content": "a"}] * 3), b"prefer: respond-async"))
        assert (await client.reply()).status == 202
        await client.stream.aclose()
        assert (await served.observer.only()).error is None
        other = await served.connect()
        await other.send(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await other.reply()).status == 200
    assert not any(one.abandoned.is_set() for one in served.pipeline.submissions)
