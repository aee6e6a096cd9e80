"""What a client gets that does everything right."""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import Any

import httpx
import pytest
import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, StoreUnavailable
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.status.snapshot import HealthStatus, QueueSnapshot
from ai_ticket_daemon.testing.http import Served, backend_snapshot, serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, ScriptedPipeline, succeeded

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def client_of(served: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=served.url, timeout=GUARD_SECONDS)


def frames_of(text: str) -> list[Any]:
    return [
        json.loads(part.removeprefix("data: "))
        for part in text.split("\n\n")
        if part.startswith("data: ")
    ]


async def test_a_client_that_waits_gets_the_completion_and_where_it_came_from() -> None:
    async with serving() as served, client_of(served) as client:
        reply = await client.post(
            "/event",
            json={"content": "Hello", "metadata": {"ticket": 17}},
            headers={"traceparent": TRACEPARENT},
        )
        event = (await served.pipeline.submission()).event
        ended = await served.observer.only()
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json() == {
        "completion": "done",
        "event_id": event.event_id,
        "backend": "primary",
        "attempts": 1,
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "estimated": False,
        },
        "duration_seconds": 0.5,
        "metadata": {"ticket": 17},
    }
    assert event.trace_context == {"traceparent": TRACEPARENT}
    assert (ended.route, ended.method, ended.status, ended.error, ended.event_id) == (
        "/event",
        "POST",
        200,
        None,
        event.event_id,
    )
    assert ended.duration_seconds > 0


async def test_each_piece_of_a_stream_is_written_at_once() -> None:
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    async with serving(pipeline=pipeline) as served:
        client = await served.connect()
        await client.send(post({"content": "a", "stream": True}))
        head = await client.until(b"\r\n\r\n")
        assert b"200" in head.split(b"\r\n")[0]
        assert b"text/event-stream" in head
        assert b"x-accel-buffering: no" in head
        assert b"cache-control: no-store" in head
        # Headers and heartbeat are here before the backend has made anything.
        await client.until(b": heartbeat\n\n")
        submission = await pipeline.submission()
        submission.say("Hel")
        assert b'data: {"delta":"Hel","done":false}\n\n' in await client.until(b"\n\n")
        submission.say("lo")
        assert b'{"delta":"lo","done":false}' in await client.until(b"\n\n")
        submission.end(succeeded("Hello"))
        last = await client.until(b"0\r\n\r\n")
        (frame,) = frames_of(last.decode().partition("\r\n")[2].partition("\r\n")[2])
        assert frame["done"]
        assert frame["delta"] == ""
        assert frame["event_id"] == submission.event_id
        assert frame["usage"]["total_tokens"] == 5
        assert "completion" not in frame
        # The connection is good for another request.
        await client.send(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.reply()).status == 200
        assert not submission.abandoned.is_set()


async def test_a_silent_stream_is_kept_alive_by_heartbeats() -> None:
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    async with serving(pipeline=pipeline, heartbeat_seconds=0.05) as served:
        client = await served.connect()
        await client.send(post({"content": "a", "stream": True}))
        for _ in range(4):
            await client.until(b": heartbeat\n\n")
        (await pipeline.submission()).end(succeeded())
        assert b'"done":true' in await client.until(b"0\r\n\r\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_event_that_failed_is_answered_in_the_one_shape(stream: bool) -> None:
    pipeline = ScriptedPipeline()
    pipeline.answer = Failed(
        ErrorCode.API_RATE_LIMITED, "Busy.", details={"backend": "p"}, retry_after_seconds=1.2
    )
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await client.post(
            "/event",
            json={"content": "a", "stream": stream},
            headers={"traceparent": TRACEPARENT},
        )
        submission = await pipeline.submission()
        ended = await served.observer.only()
    expected = {
        "error": "api_rate_limited",
        "message": "Busy.",
        "details": {"backend": "p"},
        "event_id": submission.event_id,
        "trace_id": TRACE,
    }
    assert ended.error is ErrorCode.API_RATE_LIMITED
    if stream:
        assert reply.status_code == ended.status == 200
        assert frames_of(reply.text) == [expected | {"done": True}]
    else:
        assert reply.status_code == ended.status == 503
        assert reply.headers["retry-after"] == "2"
        assert reply.json() == expected


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (RequestRefused(ErrorCode.QUEUE_FULL, "Full.", retry_after_seconds=0.1), 503),
        (RequestRefused(ErrorCode.DRAINING, "Stopping."), 503),
        (StoreUnavailable("Disk full."), 503),
    ],
)
async def test_what_is_refused_before_it_starts_has_its_own_status(
    refusal: RequestRefused, status: int, stream: bool
) -> None:
    pipeline = ScriptedPipeline()
    pipeline.refusal = refusal
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await client.post("/event", json={"content": "a", "stream": stream})
    assert reply.status_code == status
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["error"] == refusal.code
    assert reply.json()["event_id"] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("lack", "resource"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, ""), "memory"),
        (OSError(errno.EMFILE, ""), "file descriptors"),
        (RuntimeError("can't start new thread"), "threads"),
        (ExceptionGroup("", [OSError(errno.ENOBUFS, "")]), "socket buffers"),
    ],
)
async def test_what_the_host_lacks_is_said_by_its_name_and_is_no_crash(
    lack: Exception, resource: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = ScriptedPipeline()
    pipeline.crash = lack
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await client.post("/event", json={"content": "a", "stream": stream})
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"] == "host_exhausted"
    assert reply.json()["details"] == {"resource": resource}
    assert f"out of {resource}" in reply.json()["message"]
    assert caplog.records == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_crash_is_an_internal_error_and_the_server_goes_on(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = ScriptedPipeline()
    pipeline.crash = ZeroDivisionError("secret")
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await client.post("/event", json={"content": "a", "stream": stream})
        assert reply.status_code == 500
        assert reply.json()["error"] == "internal_error"
        assert "secret" not in reply.text
        (record,) = caplog.records
        assert record.exc_info
        assert record.__dict__["TRACE_ID"] == reply.json()["trace_id"]

        pipeline.crash, pipeline.answer = None, None
        async with trio.open_nursery() as nursery:

            async def post_another() -> None:
                nonlocal reply
                reply = await client.post("/event", json={"content": "a", "stream": stream})

            nursery.start_soon(post_another)
            submission = await pipeline.submission()
            submission.fall_over(ZeroDivisionError("secret"))
        error = frames_of(reply.text)[-1] if stream else reply.json()
        assert error["error"] == "internal_error"
        assert error["event_id"] == submission.event_id
        assert "secret" not in reply.text
        with trio.fail_after(GUARD_SECONDS):
            await submission.abandoned.wait()
        assert (await client.get("/live")).status_code == 200


async def test_health_tells_how_things_stand() -> None:
    async with serving() as served, client_of(served) as client:
        served.health.current = dataclasses.replace(
            served.health.current,
            status=HealthStatus.DEGRADED,
            reasons=("on the standby",),
            backends=(backend_snapshot("standby", "standby", "busy", active=True, in_flight=1),),
            queue=QueueSnapshot(states={"queued": 3}),
        )
        reply = await client.get("/health")
        assert reply.status_code == 200
        assert reply.json() == {
            "status": "degraded",
            "reasons": ["on the standby"],
            "ready": True,
            "draining": False,
            "version": "0",
            "uptime_seconds": 1.0,
            "backends": [
                {
                    "name": "standby",
                    "role": "standby",
                    "state": "busy",
                    "active": True,
                    "in_flight": 1,
                    "version": None,
                    "features": [],
                }
            ],
            "queue": {"queued": 3},
        }
        assert (await client.get("/ready")).json() == {"ready": True, "reasons": ["on the standby"]}


async def test_probes_fail_when_events_cannot_be_served() -> None:
    async with serving() as served, client_of(served) as client:
        served.health.current = dataclasses.replace(
            served.health.current,
            status=HealthStatus.UNHEALTHY,
            ready=False,
            reasons=("no backend",),
        )
        for path in ("/health", "/ready"):
            reply = await client.get(path)
            assert reply.status_code == 503
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["reasons"] == ["no backend"]
        assert (await client.get("/live")).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/live", "/ready", "/openapi.json"])
async def test_head_gives_the_headers_of_get(path: str) -> None:
    async with serving() as served, client_of(served) as client:
        got, headed = await client.get(path), await client.head(path)
    assert headed.status_code == got.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-length"] == str(len(got.content))


async def test_a_reload_takes_effect_with_the_next_request() -> None:
    async with serving() as served, client_of(served) as client:
        assert (await client.post("/event", json={"content": "a" * 100})).status_code == 200
        served.http = dataclasses.replace(served.http, max_body_bytes=50)
        assert (await client.post("/event", json={"content": "a" * 100})).status_code == 413
        served.http = dataclasses.replace(served.http, max_body_bytes=500)
        served.events = dataclasses.replace(served.events, max_content_bytes=99)
        assert (await client.post("/event", json={"content": "a" * 100})).status_code == 413
        assert (await client.post("/event", json={"content": "a" * 99})).status_code == 200


def post(body: Any) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(data)
    ) + data
