"""What one connection of HTTP/1 writes for its requests, and in how many pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H2ProtocolAssumedError

from ai_ticket_daemon.server.listen.http1 import MAX_AHEAD_BYTES, MAX_REQUESTS, Http1
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS
from tests.support.lacks import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ai_ticket_daemon.server.request import ClientSide, Request

GET = b"GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Line:
    """A connection without a socket: remembers what is written to it and told of it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.pieces: list[bytes] = []
        self.told: list[Event] = []
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.held: trio.Event | None = None
        self.cancelled = 0
        self.resumed = 0
        self._nursery = nursery
        self.http1 = Http1(
            self._open,
            start=self._start,
            write=self._write,
            tell=self._tell,
            place=trio.lowlevel.checkpoint,
            peer="192.0.2.1",
            is_secure=False,
            stops=lambda: False,
            on_resume=self._resume,
            on_malformed=lambda: None,
        )

    async def receive(self, data: bytes) -> None:
        await self.http1.handle(RawData(data=data))

    def _open(self, request: Request, client: ClientSide) -> _Answered:
        self.requests.append(request)
        self.bodies.append(b"")
        return _Answered(self, client, streams=request.query == b"stream")

    def _start(self, serve: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(serve)

    async def _write(self, data: bytes) -> bool:
        self.pieces.append(data)
        return True

    async def _tell(self, event: Event) -> None:
        self.told.append(event)

    def _resume(self) -> None:
        self.resumed += 1


class _Answered:
    """Answers a request with what it was sent, in pieces or as a whole."""

    def __init__(self, line: Line, client: ClientSide, *, streams: bool) -> None:
        self._line = line
        self._client = client
        self._streams = streams

    def take(self, data: bytes, *, is_last: bool) -> None:
        self._line.bodies[-1] += data

    async def run(self) -> None:
        try:
            if self._line.held is not None:
                await self._line.held.wait()
        except trio.Cancelled:
            self._line.cancelled += 1
            raise
        if self._streams:
            self._client.start(200, {})
            for piece in (b"one", b"two"):
                await self._client.send(piece, is_last=False)
            await self._client.send(b"", is_last=True)
        else:
            self._client.start(200, {"content-length": "2"})
            await self._client.send(b"ok", is_last=True)


def body_of(piece: bytes) -> bytes:
    return piece.partition(b"\r\n\r\n")[2]


async def test_a_whole_answer_is_one_piece_and_a_stream_begins_with_its_head() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        await line.receive(GET)
        await until(lambda: len(line.pieces) == 1)
        assert body_of(line.pieces[0]) == b"ok"
        await line.receive(GET.replace(b"?b", b"?stream"))
        await until(lambda: len(line.pieces) == 4)
        assert body_of(line.pieces[1]) == b"3\r\none\r\n"
        assert line.pieces[2:] == [b"3\r\ntwo\r\n", b"0\r\n\r\n"]
        request = line.requests[0]
        assert (request.method, request.target, request.query) == ("GET", b"/a", b"b")
        nursery.cancel_scope.cancel()


async def test_a_stream_over_http_1_0_ends_with_its_connection() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        await line.receive(b"GET /a?stream HTTP/1.0\r\n\r\n")
        await until(lambda: any(isinstance(event, Closed) for event in line.told))
        assert b"transfer-encoding" not in line.pieces[0]
        assert b"connection: close" in line.pieces[0]
        assert body_of(b"".join(line.pieces)) == b"onetwo"


async def test_requests_sent_ahead_are_answered_in_their_order_up_to_the_last_one() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        for _ in range(MAX_REQUESTS + 5):
            await line.receive(POST + b"hello")
        await until(lambda: any(isinstance(event, Closed) for event in line.told))
        assert line.bodies == [b"hello"] * MAX_REQUESTS
        closing = [b"connection: close" in piece for piece in line.pieces]
        assert closing == [False] * (MAX_REQUESTS - 1) + [True]


async def test_a_client_that_sends_too_much_ahead_has_to_wait() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        line.held = trio.Event()
        rooms = [line.http1.room_bytes]
        await line.receive(GET)
        await until(lambda: len(line.requests) == 1)
        rooms.append(line.http1.room_bytes)
        await line.receive(GET + b"x" * MAX_AHEAD_BYTES)
        rooms.append(line.http1.room_bytes)
        assert rooms == [None, MAX_AHEAD_BYTES, 0]
        line.held.set()
        await until(lambda: len(line.requests) == 2)
        assert line.resumed == 1
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_ends_its_request_and_the_task_of_its_connection() -> None:
    with trio.fail_after(GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            line = Line(nursery)
            line.held = trio.Event()
            await line.receive(GET)
            await until(lambda: len(line.requests) == 1)
            await line.http1.handle(Closed())
        assert (line.cancelled, line.pieces) == (1, [])


async def test_a_body_that_breaks_ends_its_request_with_the_mistake_of_the_client() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        line.held = trio.Event()
        head = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await line.receive(head + b"2\r\nab\r\n")
        await until(lambda: line.bodies == [b"ab"])
        await line.receive(b"no size\r\n")
        await until(lambda: any(isinstance(event, Closed) for event in line.told))
        assert line.cancelled == 1
        assert [piece[:13] for piece in line.pieces] == [b"HTTP/1.1 400 "]


async def test_a_request_whose_body_is_broken_from_the_start_has_one_answer() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        head = b"GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await line.receive(head + b"no size\r\n" + GET)
        await until(lambda: any(isinstance(event, Closed) for event in line.told))
        assert line.requests == []
        assert [piece[:13] for piece in line.pieces] == [b"HTTP/1.1 400 "]
        assert b"connection: close" in line.pieces[0]


async def test_a_client_that_sends_only_blank_lines_ahead_is_read_on() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        line.held = trio.Event()
        await line.receive(GET)
        await until(lambda: len(line.requests) == 1)
        await line.receive(b"\r\n" * (MAX_AHEAD_BYTES // 2))
        assert line.http1.room_bytes == 0
        line.held.set()
        await until(lambda: line.resumed == 1)
        await line.receive(GET)
        await until(lambda: len(line.requests) == 2)
        nursery.cancel_scope.cancel()


async def test_a_request_that_came_with_the_end_of_its_time_has_one_answer() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        for _ in range(2):  # the first one starts the task that serves, the second one wakes it
            await line.receive(GET)
            await line.http1.headers_timed_out()
            await trio.testing.wait_all_tasks_blocked()
        await line.receive(GET[:-2])
        await trio.testing.wait_all_tasks_blocked()
        await line.http1.headers_timed_out()
        statuses = [piece[9:12] for piece in line.pieces]
        assert statuses == [b"200", b"200", b"408"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, 7, 18, len(PREFACE)])
async def test_the_preface_of_http2_is_handed_over_with_all_that_came(size: int) -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        with pytest.raises(H2ProtocolAssumedError) as caught:
            for at in range(0, len(PREFACE), size):
                await line.receive(PREFACE[at : at + size])
                await trio.testing.wait_all_tasks_blocked()
        assert PREFACE.startswith(caught.value.data)
        assert len(caught.value.data) >= len(PREFACE.rpartition(b"SM")[0])
        assert line.pieces == []
