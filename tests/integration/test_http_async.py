"""Handing over now and fetching later: preferences, long polls, cancelling, keys, owners."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.errors import ErrorCode, RequestRefused, StoreUnavailable
from ai_ticket_daemon.events.ids import new_event_id
from ai_ticket_daemon.events.outcome import Attempt, Failed
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.testing.http import Served, serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, ScriptedPipeline, succeeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
UNKNOWN_ID = "01a2208c-7c50-754a-a38a-51a2fca0acee"


def held() -> ScriptedPipeline:
    """Return a pipeline that leaves the end of each event to the test."""
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    return pipeline


def client_of(served: Served, token: str = "") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=served.url, timeout=GUARD_SECONDS, headers=headers)


async def post(
    client: httpx.AsyncClient, content: object = "a", /, **headers: str
) -> httpx.Response:
    return await client.post(
        "/event",
        json={"content": content, "metadata": {"ticket": 1}},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def stream(
    client: httpx.AsyncClient, content: object = "a", /, **headers: str
) -> httpx.Response:
    return await client.post(
        "/event",
        json={"content": content, "metadata": {"ticket": 1}, "stream": True},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def during(
    request: Callable[[], Awaitable[httpx.Response]], then: Callable[[], Awaitable[None]]
) -> httpx.Response:
    """Return the answer to a request while which something happens."""
    replies: list[httpx.Response] = []

    async def ask() -> None:
        replies.append(await request())

    with trio.fail_after(GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await then()
    return replies[0]


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("respond-async, wait=0", "respond-async, wait=0"),
    ],
)
async def test_a_client_that_does_not_wait_is_told_where_to_look(prefer: str, applied: str) -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        reply = await post(client, prefer=prefer)
        submission = await served.pipeline.submission()
        ended = await served.observer.only()
    event_id = submission.event_id
    assert reply.status_code == 202
    assert reply.json() == {
        "event_id": event_id,
        "state": "queued",
        "position": 3,
        "estimated_start": "2025-11-25T18:40:00.250Z",
    }
    assert reply.headers["location"] == f"/event/{event_id}"
    assert reply.headers["preference-applied"] == applied
    assert reply.headers["cache-control"] == "no-store"
    assert "idempotency-replayed" not in reply.headers
    assert (ended.route, ended.status, ended.error, ended.event_id) == (
        "/event",
        202,
        None,
        event_id,
    )
    assert submission.released.is_set()
    assert not submission.abandoned.is_set()
    # Whoever will fetch the outcome later can wait for a backend.
    assert served.pipeline.eager == {event_id: False}


async def test_a_client_that_waits_long_enough_gets_the_outcome() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:

        async def end() -> None:
            (await served.pipeline.submission()).end(succeeded())

        reply = await during(partial(post, client, prefer="respond-async, wait=60"), end)
        submission = await served.pipeline.submission()
    assert reply.status_code == 200
    assert reply.json()["completion"] == "done"
    assert reply.headers["preference-applied"] == "wait=60"
    assert "location" not in reply.headers
    assert not submission.abandoned.is_set()


async def test_a_client_that_waits_too_short_is_told_how_things_stand_by_then() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:

        async def begin() -> None:
            (await served.pipeline.submission()).scripted.state = EventState.RUNNING

        begun_at = time.monotonic()
        reply = await during(partial(post, client, prefer="wait=1"), begin)
        assert time.monotonic() - begun_at >= 1.0
        submission = await served.pipeline.submission()
        assert reply.status_code == 202
        assert reply.headers["preference-applied"] == "wait=1"
        assert reply.json() == {
            "event_id": submission.event_id,
            "state": "running",
            "position": None,
            "estimated_start": None,
        }
        assert submission.released.is_set()
        assert not submission.abandoned.is_set()


async def test_a_client_that_can_come_back_is_not_sent_away_with_an_error() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:

        async def stop() -> None:
            submission = await served.pipeline.submission()
            submission.end(Failed(ErrorCode.DRAINING, "The daemon stops."))

        reply = await during(partial(post, client, prefer="wait=60"), stop)
        submission = await served.pipeline.submission()
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/event/{submission.event_id}"
    assert submission.released.is_set()
    assert not submission.abandoned.is_set()


@pytest.mark.parametrize("prefer", ["", "wait=soon", "handling=strict", "respond-async=no"])
async def test_without_a_wish_that_makes_sense_a_client_waits_and_fails_fast(prefer: str) -> None:
    async with serving() as served, client_of(served) as client:
        reply = await post(client, prefer=prefer)
    assert reply.status_code == 200
    assert "preference-applied" not in reply.headers
    assert list(served.pipeline.eager.values()) == [True]


async def test_a_stream_is_streamed_whatever_is_preferred() -> None:
    async with serving() as served, client_of(served) as client:
        reply = await stream(client, prefer="respond-async")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/event-stream"
    assert "preference-applied" not in reply.headers
    assert list(served.pipeline.eager.values()) == [True]


async def test_a_full_queue_says_when_to_come_back() -> None:
    pipeline = ScriptedPipeline()
    pipeline.refusal = RequestRefused(ErrorCode.QUEUE_FULL, "Full.", retry_after_seconds=41.2)
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await post(client, prefer="respond-async")
    assert reply.status_code == 503
    assert reply.json()["error"] == "queue_full"
    assert reply.headers["retry-after"] == "42"


async def test_an_event_can_be_looked_at_at_any_time() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
        accepted = await post(client, prefer="respond-async", traceparent=traceparent)
        location = accepted.headers["location"]
        submission = await served.pipeline.submission()
        queued = await client.get(location)
        event = submission.event
        assert queued.status_code == 200
        assert queued.headers["cache-control"] == "no-store"
        assert queued.json() == {
            **accepted.json(),
            "submitted_at": queued.json()["submitted_at"],
            "deadline_at": queued.json()["deadline_at"],
            "attempts": [],
            "outcome": None,
        }
        assert queued.json()["submitted_at"] < queued.json()["deadline_at"]
        submission.scripted.state = EventState.RUNNING
        assert (await client.get(location)).json()["state"] == "running"
        submission.end(succeeded())
        well = (await client.get(location)).json()
        assert (well["state"], well["position"], well["estimated_start"]) == (
            "succeeded",
            None,
            None,
        )
        assert well["outcome"] == {
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
            "metadata": {"ticket": 1},
        }
        assert well["attempts"] == [
            {
                "backend": "primary",
                "started_at": "1970-01-01T00:00:01.000Z",
                "ended_at": "1970-01-01T00:00:01.500Z",
                "error": None,
                "message": None,
                "counted": True,
                "tokens": None,
                "tokens_estimated": False,
                "retried": None,
                "because": None,
            }
        ]
        assert (await client.head(location)).status_code == 200
        (*_, last) = served.observer.requests
        with trio.fail_after(GUARD_SECONDS):
            await last.over.wait()
        assert last.end is not None
        assert (last.end.route, last.end.event_id) == ("/event/{event_id}", event.event_id)


async def test_an_event_that_failed_tells_why_and_what_was_tried() -> None:
    pipeline = ScriptedPipeline()
    attempt = Attempt("primary", 1.0, 2.0, ErrorCode.API_TIMEOUT, "Slow.", counted=False)
    tried = (replace(attempt, tokens=212, retried=False, because="Enough."),)
    pipeline.answer = Failed(ErrorCode.DEADLINE_EXCEEDED, "Late.", {"a": 1}, attempts=tried)
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
        accepted = await post(client, prefer="respond-async", traceparent=traceparent)
        reply = await client.get(accepted.headers["location"])
    assert reply.status_code == 200
    assert reply.json()["state"] == "failed"
    assert reply.json()["outcome"] == {
        "error": "deadline_exceeded",
        "message": "Late.",
        "details": {
            "a": 1,
            "tried": [
                {
                    "backend": "primary",
                    "error": "api_timeout",
                    "seconds": 1.0,
                    "behind": 0,
                    "tokens": 212,
                    "tokens_estimated": False,
                    "retried": False,
                    "because": "Enough.",
                }
            ],
        },
        "event_id": accepted.json()["event_id"],
        "trace_id": TRACE,
    }
    (shown,) = reply.json()["attempts"]
    assert (shown["error"], shown["message"], shown["counted"], shown["tokens"]) == (
        "api_timeout",
        "Slow.",
        False,
        212,
    )


async def test_a_long_poll_returns_when_the_event_ends() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        location = (await post(client, prefer="respond-async")).headers["location"]

        async def end() -> None:
            (await served.pipeline.submission(2)).end(succeeded())

        reply = await during(partial(client.get, location, params={"wait": "60"}), end)
        assert reply.json()["state"] == "succeeded"
        watcher = await served.pipeline.submission(2)
        assert watcher.released.is_set()
        assert not watcher.abandoned.is_set()
        # An event that has ended is not waited for.
        again = await client.get(location, params={"wait": "60"})
        assert again.json()["state"] == "succeeded"
        assert len(served.pipeline.submissions) == 2


async def test_a_long_poll_returns_when_its_time_is_over() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        location = (await post(client, prefer="respond-async")).headers["location"]
        begun_at = time.monotonic()
        reply = await client.get(location, params={"wait": "0.2"})
        assert time.monotonic() - begun_at >= 0.2
        assert (reply.status_code, reply.json()["state"]) == (200, "queued")
        watcher = await served.pipeline.submission(2)
        assert watcher.released.is_set()


@pytest.mark.parametrize(
    "query", ["wait=", "wait=-1", "wait=301", "wait=1&wait=2", "wait=x", "wait=1e9", "wait=%00"]
)
async def test_a_wait_that_makes_no_sense_is_refused(query: str) -> None:
    async with serving() as served, client_of(served) as client:
        location = (await post(client, prefer="respond-async")).headers["location"]
        reply = await client.get(f"{location}?{query}")
    assert reply.status_code == 422
    assert reply.json()["error"] == "invalid_parameter"
    assert reply.json()["details"]["field"] == "wait"


async def test_a_query_that_means_nothing_is_ignored() -> None:
    async with serving() as served, client_of(served) as client:
        location = (await post(client, prefer="respond-async")).headers["location"]
        assert (await client.get(f"{location}?verbose=1")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "event_id",
    [
        UNKNOWN_ID,
        UNKNOWN_ID.upper(),
        "{" + UNKNOWN_ID + "}",
        UNKNOWN_ID.replace("-", ""),
        "nonsense",
        "a" * 3000,
        "%00",
        "%2e%2e",
        "%ff",
        "'; drop table events; --",
    ],
)
async def test_an_event_that_is_not_there_is_not_found(method: str, event_id: str) -> None:
    async with serving() as served, client_of(served) as client:
        reply = await client.request(method, f"/event/{event_id}")
        assert reply.status_code == 404
        assert reply.json()["error"] == "event_not_found"
        assert reply.json()["event_id"] is None
        assert (await client.get("/live")).status_code == 200
    assert served.observer.requests[0].start.route == "/event/{event_id}"


@pytest.mark.parametrize("path", ["/event/", "/event/a/b", "/event/a/", "/events/a", "/event//"])
async def test_a_path_beside_the_routes_is_no_route(path: str) -> None:
    async with serving() as served, client_of(served) as client:
        reply = await client.get(path)
        assert (reply.status_code, reply.json()["error"]) == (404, "not_found")
    assert served.observer.requests[0].start.route == "unmatched"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS"])
async def test_an_event_takes_no_other_method(method: str) -> None:
    async with serving() as served, client_of(served) as client:
        reply = await client.request(method, f"/event/{new_event_id(1.7e9)}")
    assert (reply.status_code, reply.json()["error"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "DELETE, GET, HEAD"


async def test_an_event_is_cancelled_once_and_stays_so() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        location = (await post(client, prefer="respond-async")).headers["location"]
        for _ in range(2):
            reply = await client.delete(location)
            assert reply.status_code == 200
            assert reply.json()["state"] == "cancelled"
            assert reply.json()["outcome"]["error"] == "cancelled"
        assert (await client.get(location)).json()["state"] == "cancelled"


async def test_an_event_that_has_ended_is_not_cancelled_any_more() -> None:
    async with serving() as served, client_of(served) as client:
        location = (await post(client, prefer="respond-async")).headers["location"]
        reply = await client.delete(location)
    assert reply.status_code == 200
    assert reply.json()["state"] == "succeeded"


async def test_whoever_waits_for_an_event_that_is_cancelled_is_told() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:

        async def cancel() -> None:
            event_id = (await served.pipeline.submission()).event_id
            assert (await client.delete(f"/event/{event_id}")).status_code == 200

        reply = await during(partial(post, client), cancel)
    assert (reply.status_code, reply.json()["error"]) == (409, "cancelled")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_store_that_cannot_be_read_is_told(method: str) -> None:
    pipeline = ScriptedPipeline()
    pipeline.refusal = StoreUnavailable("The disk is full.")
    async with serving(pipeline=pipeline) as served, client_of(served) as client:
        reply = await client.request(method, f"/event/{new_event_id(1.7e9)}")
    assert (reply.status_code, reply.json()["error"]) == (503, "store_unavailable")
    assert int(reply.headers["retry-after"]) >= 1


async def test_the_same_key_gives_the_same_event_however_it_is_asked() -> None:
    async with serving(pipeline=held()) as served, client_of(served) as client:
        keyed = {"idempotency_key": "order-17"}
        first = await post(client, prefer="respond-async", **keyed)
        event_id = first.json()["event_id"]
        assert "idempotency-replayed" not in first.headers
        second = await post(client, prefer="respond-async", **keyed)
        assert second.json()["event_id"] == event_id
        assert second.headers["idempotency-replayed"] == "true"
        assert second.headers["location"] == f"/event/{event_id}"

        async def end() -> None:
            submission = await served.pipeline.submission(3)
            assert submission.replayed
            submission.end(succeeded())

        waiting = await during(partial(post, client, **keyed), end)
        assert waiting.status_code == 200
        assert waiting.json()["event_id"] == event_id
        assert waiting.headers["idempotency-replayed"] == "true"
        later = await post(client, prefer="respond-async", **keyed)
        assert (later.status_code, later.json()["state"]) == (202, "succeeded")
        streamed = await stream(client, **keyed)
        assert streamed.headers["idempotency-replayed"] == "true"
        frames = [
            json.loads(line.removeprefix("data: "))
            for line in streamed.text.splitlines()
            if line.startswith("data: ")
        ]
        # Whoever comes late gets the whole text all the same.
        assert "".join(frame["delta"] for frame in frames) == "done"
        assert [frame["done"] for frame in frames] == [False, True]
        assert frames[-1]["event_id"] == event_id
        assert len(served.pipeline.events) == 1


async def test_a_replayed_stream_is_kept_alive_until_the_event_ends() -> None:
    async with (
        serving(pipeline=held(), heartbeat_seconds=0.05) as served,
        client_of(served) as client,
    ):
        await post(client, prefer="respond-async", idempotency_key="k")

        async def end() -> None:
            submission = await served.pipeline.submission(2)
            await trio.sleep(0.2)
            submission.end(Failed(ErrorCode.API_TIMEOUT, "Slow."))

        reply = await during(partial(stream, client, idempotency_key="k"), end)
    assert reply.text.count(": heartbeat\n\n") >= 3
    last = json.loads(reply.text.rpartition("data: ")[2])
    assert (last["error"], last["done"]) == ("api_timeout", True)
    assert "delta" not in last


async def test_the_same_key_for_another_payload_is_a_conflict() -> None:
    async with serving() as served, client_of(served) as client:
        assert (await post(client, "a", idempotency_key="k")).status_code == 200
        for headers in ({}, {"prefer": "respond-async"}):
            reply = await post(client, "b", idempotency_key="k", **headers)
            assert reply.status_code == 409
            assert reply.json()["error"] == "idempotency_conflict"
            assert reply.json()["event_id"] is None
        reply = await stream(client, "b", idempotency_key="k")
        assert reply.status_code == 409


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb"])
async def test_a_key_that_cannot_be_kept_is_refused(key: str) -> None:
    async with serving() as served, client_of(served) as client:
        reply = await post(client, idempotency_key=key)
        assert (reply.status_code, reply.json()["error"]) == (422, "invalid_parameter")
    assert served.pipeline.submissions == []


async def test_events_are_seen_by_their_owner_and_by_operators_alone() -> None:
    lines = (
        "bot:bot-token-bot-token\nbot:bot-token-to-come\n"
        "other:other-token-other\nops:ops-token-ops-token read,operate\n"
        "mute:mute-token-mute-token submit"
    )
    auth = AuthConfig(Tokens(Path("/tokens"), parse_tokens(lines)))
    async with (
        serving(auth=auth, pipeline=held()) as served,
        client_of(served, "bot-token-bot-token") as bot,
        client_of(served, "bot-token-to-come") as bot_later,
        client_of(served, "other-token-other") as other,
        client_of(served, "ops-token-ops-token") as ops,
        client_of(served, "mute-token-mute-token") as mute,
        client_of(served) as nobody,
    ):
        location = (await post(bot, prefer="respond-async")).headers["location"]
        assert (await served.pipeline.submission()).event.owner == "bot"
        statuses: dict[str, Any] = {}
        for name, client in (
            ("bot", bot),
            ("bot_later", bot_later),
            ("other", other),
            ("ops", ops),
            ("mute", mute),
            ("nobody", nobody),
        ):
            statuses[name] = (await client.get(location)).status_code
        assert statuses == {
            "bot": 200,
            "bot_later": 200,
            "other": 404,
            "ops": 200,
            "mute": 403,
            "nobody": 401,
        }
        # An event of somebody else looks the same as none.
        hidden = (await other.get(location)).json()
        missing = (await other.get(f"/event/{new_event_id(1.7e9)}")).json()
        assert hidden["message"] == missing["message"]
        assert hidden["event_id"] is missing["event_id"] is None
        assert (await other.delete(location)).status_code == 404
        assert (await mute.delete(location)).status_code == 404
        assert (await bot.get(location)).json()["state"] == "queued"
        # The same key of two owners stands for two events.
        keyed = {"prefer": "respond-async", "idempotency_key": "k"}
        ids = {(await post(client, **keyed)).json()["event_id"] for client in (bot, other)}
        assert len(ids) == 2
        assert (await bot_later.delete(location)).json()["state"] == "cancelled"
