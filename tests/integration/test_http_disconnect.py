"""Clients that leave, fall silent, or do not read: their events are abandoned, nothing hangs."""

from __future__ import annotations

import json
import os
import random
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import UnixBind
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.testing.http import RawClient, Served, serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, ScriptedPipeline, succeeded

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.testing.pipeline import ScriptedSubmission

GET = b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n"


def post(*headers: bytes, stream: bool) -> bytes:
    data = json.dumps({"content": "a", "stream": stream}).encode()
    lines = [
        b"POST /event HTTP/1.1",
        b"host: a",
        b"content-type: application/json",
        b"content-length: %d" % len(data),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


def held() -> ScriptedPipeline:
    """Return a pipeline that leaves the end of each event to the test."""
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    return pipeline


async def assert_abandoned(served: Served, submission: ScriptedSubmission) -> None:
    with trio.fail_after(GUARD_SECONDS):
        await submission.abandoned.wait()
    recorded = served.observer.requests[0]
    with trio.fail_after(GUARD_SECONDS):
        await recorded.over.wait()
    assert recorded.end is not None
    assert recorded.end.error is ErrorCode.CANCELLED
    assert recorded.end.status == (200 if submission.event.stream else 499)


async def assert_alive(served: Served) -> None:
    client = await served.connect()
    await client.send(GET)
    assert (await client.reply()).status == 200


def reset(client: RawClient) -> None:
    """Close with a TCP reset instead of an orderly end."""
    assert isinstance(client.stream, trio.SocketStream)
    client.stream.socket.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
    )
    client.stream.socket.close()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_abandons_its_event(stream: bool, how: str) -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(stream=stream))
        submission = await served.pipeline.submission()
        assert not submission.abandoned.is_set()
        if how == "close":
            await client.stream.aclose()
        elif how == "reset":
            reset(client)
        else:
            # Who sends no more cannot be told from who has gone, and is taken for gone.
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
        await assert_abandoned(served, submission)
        if how == "half-close":
            await client.until(b"nothing more comes than what was there before")
            assert await client.at_end()
        await assert_alive(served)


async def test_a_client_that_asks_and_half_closes_at_once_gets_what_needs_no_waiting() -> None:
    async with serving(pipeline=held()) as served:
        for _ in range(20):  # which of two tasks of a connection is first is a matter of chance
            client = await served.connect()
            assert isinstance(client.stream, trio.SocketStream)
            os.write(client.stream.socket.fileno(), GET)
            client.stream.socket.shutdown(socket.SHUT_WR)
            assert (await client.reply()).status == 200
            assert await client.at_end()


@pytest.mark.parametrize(
    "headers",
    [
        [b"prefer: wait=60"],
        [b"prefer: respond-async, wait=60"],
        # Whether one with a key goes on is for the pipeline to say.
        [b"idempotency-key: k"],
    ],
)
async def test_a_client_that_leaves_before_it_is_told_the_id_abandons_its_event(
    headers: list[bytes],
) -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(*headers, stream=False))
        submission = await served.pipeline.submission()
        await client.stream.aclose()
        await assert_abandoned(served, submission)
        assert not submission.released.is_set()


@pytest.mark.parametrize("prefer", [b"prefer: respond-async", b"prefer: wait=0"])
async def test_a_client_that_leaves_when_it_has_been_told_the_id_abandons_nothing(
    prefer: bytes,
) -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(prefer, stream=False))
        assert (await client.reply()).status == 202
        reset(client)
        assert (await served.observer.only()).error is None
        await assert_alive(served)
        submission = await served.pipeline.submission()
        assert submission.released.is_set()
        assert not submission.abandoned.is_set()


async def test_a_client_that_leaves_a_long_poll_leaves_the_event_alone() -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(b"prefer: respond-async", stream=False))
        location = (await client.reply()).headers["location"].encode()
        await client.send(b"GET %s?wait=60 HTTP/1.1\r\nhost: a\r\n\r\n" % location)
        watcher = await served.pipeline.submission(2)
        await client.stream.aclose()
        with trio.fail_after(GUARD_SECONDS):
            await watcher.released.wait()
        assert not watcher.abandoned.is_set()
        with trio.fail_after(GUARD_SECONDS):
            await served.observer.requests[1].over.wait()
        await assert_alive(served)


async def test_a_client_that_leaves_in_the_middle_of_a_stream_abandons_its_event() -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(stream=True))
        submission = await served.pipeline.submission()
        submission.say("Hel")
        await client.until(b'"Hel"')
        await client.stream.aclose()
        await assert_abandoned(served, submission)


async def test_a_client_that_leaves_before_its_body_is_complete_submits_nothing() -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(stream=False)[:-1])
        # Answered at once only if the server has read what came before on the other connection.
        await assert_alive(served)
        await client.stream.aclose()
        with trio.fail_after(GUARD_SECONDS):
            await served.observer.requests[0].over.wait()
        assert served.pipeline.submissions == []


@pytest.mark.parametrize("ahead", [b"\r\n", GET, b"garbage", GET * 1000])
async def test_a_client_that_leaves_after_sending_more_is_noticed_too(ahead: bytes) -> None:
    async with serving(pipeline=held()) as served:
        client = await served.connect()
        await client.send(post(stream=False) + ahead)
        submission = await served.pipeline.submission()
        await client.stream.aclose()
        await assert_abandoned(served, submission)
        await assert_alive(served)


async def test_a_client_that_leaves_after_sending_more_than_is_read_is_given_up_after_a_while() -> (
    None
):
    async with serving(pipeline=held(), write_timeout_seconds=0.2) as served:
        client = await served.connect()
        submission = None
        async with trio.open_nursery() as nursery:
            # The kernel holds a part of it, and would tell that it is over only behind that.
            nursery.start_soon(client.stream.send_all, post(stream=False) + GET * 500_000)
            submission = await served.pipeline.submission()
            nursery.cancel_scope.cancel()
        await client.stream.aclose()
        await assert_abandoned(served, submission)
        await assert_alive(served)


async def test_an_event_that_ended_is_not_abandoned_when_its_client_leaves() -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(post(stream=False))
        assert (await client.reply()).status == 200
        await client.stream.aclose()
        assert (await served.observer.only()).error is None
        assert not served.pipeline.submissions[0].abandoned.is_set()


async def test_a_connection_over_a_unix_socket_is_watched_as_well(tmp_path: Path) -> None:
    path = tmp_path / "http"
    async with serving(HttpConfig(bind=(UnixBind(path),)), pipeline=held()) as served:
        client = served.client(await trio.open_unix_socket(str(path)))
        await client.send(post(stream=False))
        submission = await served.pipeline.submission()
        await client.stream.aclose()
        await assert_abandoned(served, submission)


async def flood(submission: ScriptedSubmission) -> None:
    """Make text until somebody has had enough."""
    while not submission.abandoned.is_set():
        submission.say("x" * 100_000)
        await trio.sleep(0.001)


async def test_a_client_that_does_not_read_is_given_up_after_a_while() -> None:
    async with serving(pipeline=held(), write_timeout_seconds=0.3) as served:
        client = await served.connect()
        await client.send(post(stream=True))
        submission = await served.pipeline.submission()
        with trio.fail_after(GUARD_SECONDS):
            await flood(submission)
        await assert_abandoned(served, submission)
        await assert_alive(served)
        served.stop.set()
        with trio.fail_after(GUARD_SECONDS):
            await served.done.wait()


async def test_a_client_that_leaves_while_it_does_not_read_is_noticed_at_once() -> None:
    async with serving(pipeline=held(), write_timeout_seconds=1000.0) as served:
        client = await served.connect()
        await client.send(post(stream=True))
        submission = await served.pipeline.submission()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, submission)
            await client.until(b"x" * 50_000)
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
            await assert_abandoned(served, submission)


class Http2Client:
    """A client that speaks HTTP/2 from the first byte."""

    def __init__(self, client: RawClient) -> None:
        self.raw = client
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True, header_encoding="utf-8", validate_outbound_headers=False
            )
        )
        self.h2.initiate_connection()
        self.seen: list[h2.events.Event] = []

    async def request(
        self, method: str, path: str, body: Any = None, *, end_stream: bool = True
    ) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a")]
        if body is not None:
            headers.append(("content-type", "application/json"))
        self.h2.send_headers(stream_id, headers, end_stream=body is None and end_stream)
        if body is not None:
            self.h2.send_data(stream_id, json.dumps(body).encode(), end_stream=end_stream)
        await self.flush()
        return stream_id

    async def flush(self) -> None:
        await self.raw.send(self.h2.data_to_send())

    async def allow(self, window_bytes: int) -> None:
        """Let the server send this much on each stream."""
        for _ in range(2):  # the first settings that are acknowledged are those of the preface
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
            await self.flush()
            await self.until(h2.events.SettingsAcknowledged)

    async def until(
        self, kind: type[h2.events.Event], stream_id: int | None = None
    ) -> h2.events.Event:
        with trio.fail_after(GUARD_SECONDS):
            while True:
                for event in self.seen:
                    if isinstance(event, kind) and getattr(event, "stream_id", None) == stream_id:
                        self.seen.remove(event)
                        return event
                data = await self.raw.stream.receive_some(65_536)
                assert data, "the server closed the connection"
                self.seen.extend(self.h2.receive_data(data))
                await self.flush()

    async def status(self, stream_id: int) -> str:
        event = await self.until(h2.events.ResponseReceived, stream_id)
        assert isinstance(event, h2.events.ResponseReceived)
        assert event.headers is not None
        return dict(cast("list[tuple[str, str]]", event.headers))[":status"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_http2_stream_that_is_reset_abandons_its_event_and_no_other(stream: bool) -> None:
    async with serving(pipeline=held()) as served:
        client = Http2Client(await served.connect())
        first = await client.request("POST", "/event", {"content": "a", "stream": stream})
        submission = await served.pipeline.submission()
        second = await client.request("POST", "/event", {"content": "b"})
        client.h2.reset_stream(first)
        await client.flush()
        await assert_abandoned(served, submission)
        other = await served.pipeline.submission(2)
        other.end(succeeded())
        assert await client.status(second) == "200"
        await client.until(h2.events.StreamEnded, second)
        assert not other.abandoned.is_set()


async def test_an_http2_client_that_leaves_abandons_all_its_events() -> None:
    async with serving(pipeline=held()) as served:
        client = Http2Client(await served.connect())
        await client.request("POST", "/event", {"content": "a"})
        submission = await served.pipeline.submission()
        await client.raw.stream.aclose()
        await assert_abandoned(served, submission)


async def test_an_http2_client_that_allows_no_data_is_given_up_and_its_stream_reset() -> None:
    async with serving(pipeline=held(), write_timeout_seconds=0.3) as served:
        client = Http2Client(await served.connect())
        await client.allow(10)
        stream_id = await client.request("POST", "/event", {"content": "a", "stream": True})
        submission = await served.pipeline.submission()
        with trio.fail_after(GUARD_SECONDS):
            await flood(submission)
        await assert_abandoned(served, submission)
        await client.until(h2.events.StreamReset, stream_id)
        # Only the stream is lost, not the connection.
        await client.allow(65_535)
        assert await client.status(await client.request("GET", "/live")) == "200"


async def test_an_http2_body_that_is_too_long_costs_its_stream_alone() -> None:
    async with serving() as served:
        served.http = replace(served.http, max_body_bytes=100)
        client = Http2Client(await served.connect())
        stream_id = await client.request("POST", "/event", {"content": "a" * 200}, end_stream=False)
        assert await client.status(stream_id) == "413"
        client.h2.send_data(stream_id, b"a" * 10_000)
        await client.flush()
        client.h2.send_data(stream_id, b"a" * 10_000, end_stream=True)
        await client.flush()
        assert await client.status(await client.request("GET", "/live")) == "200"


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "CONNECT"), (":protocol", "websocket")],
        [(":method", "M\xe9THOD")],
    ],
    ids=["WebSocket", "not ASCII"],
)
async def test_an_http2_request_that_makes_no_sense_is_reset(
    headers: list[tuple[str, str]],
) -> None:
    async with serving() as served:
        client = Http2Client(await served.connect())
        stream_id = client.h2.get_next_available_stream_id()
        rest = [(":path", "/live"), (":scheme", "http"), (":authority", "a")]
        client.h2.send_headers(stream_id, [*headers, *rest])
        await client.flush()
        await client.until(h2.events.StreamReset, stream_id)
        assert await client.status(await client.request("GET", "/live")) == "200"


async def test_of_many_clients_that_leave_at_odd_moments_nothing_stays() -> None:
    dice = random.Random(0)
    async with serving(pipeline=held()) as served:

        async def come_and_go(stream: bool, sent: int, wait_seconds: float, rude: bool) -> None:
            client = await served.connect()
            await client.send((post(stream=stream) + GET)[:sent])
            await trio.sleep(wait_seconds)
            if rude:
                reset(client)
            else:
                await client.stream.aclose()

        longest = len(post(stream=False) + GET)
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(
                    come_and_go,
                    dice.random() < 0.5,
                    dice.choice([dice.randrange(1, longest), longest]),
                    dice.choice([0.0, 0.01, 0.05]),
                    dice.random() < 0.5,
                )
        served.stop.set()
        with trio.fail_after(GUARD_SECONDS):
            await served.done.wait()
        assert served.pipeline.submissions
        assert all(submission.abandoned.is_set() for submission in served.pipeline.submissions)
        assert all(recorded.end is not None for recorded in served.observer.requests)


@pytest.mark.parametrize("http2", [False, True])
async def test_a_client_that_does_not_read_does_not_hold_up_the_end(http2: bool) -> None:
    with trio.fail_after(GUARD_SECONDS):
        async with serving(pipeline=held(), write_timeout_seconds=1000.0) as served:
            raw = await served.connect()
            if http2:
                client = Http2Client(raw)
                await client.allow(10)
                await client.request("POST", "/event", {"content": "a"})
            else:
                await raw.send(post(stream=False))
            submission = await served.pipeline.submission()
            # Ended, and its answer is on its way: that write nothing else may cut short.
            submission.end(succeeded("x" * 20_000_000))
            assert await raw.stream.receive_some(1)
            await trio.testing.wait_all_tasks_blocked(0.05)
