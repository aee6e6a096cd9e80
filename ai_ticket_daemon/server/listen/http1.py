"""HTTP/1.0 and 1.1: one connection's requests, from its bytes to what serves them, and back.

Whoever reads the socket hands the bytes over and goes on reading, so that it learns when the client
leaves. One task serves the requests, one after the other, and lives as long as the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError

from ai_ticket_daemon.server.listen.answer_bytes import AnswerBytes, refusal_bytes
from ai_ticket_daemon.server.listen.framing import HeadRefused, too_late
from ai_ticket_daemon.server.listen.incoming import Incoming
from ai_ticket_daemon.server.request import Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol

    from ai_ticket_daemon.server.listen.request_head import Head
    from ai_ticket_daemon.server.request import ClientSide

    class Exchange(Protocol):
        """What serves one request."""

        def take(self, data: bytes, *, is_last: bool) -> None:
            """Take in a piece of the body."""

        async def run(self) -> None:
            """Serve the request; it is cancelled if the client leaves."""

    OpenExchange = Callable[[Request, ClientSide], Exchange]

MAX_AHEAD_BYTES = 32_768
"""How much a client may send ahead of the response it waits for."""

MAX_REQUESTS = 1000
"""How many requests a connection may bring: clients spread anew over several daemons."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
_INVITATION = b"HTTP/1.1 100 \r\n\r\n"


class Http1:
    """The requests of one connection.

    Args:
        open_exchange: returns what serves a request.
        start: starts the task that serves them.
        write: sends bytes; returns whether the client is still there.
        tell: told when the connection gets idle or busy, and that it is to be closed.
        place: waits for a place among all connections.
        peer: the address at the other end; None on a Unix socket.
        is_secure: whether it speaks TLS, which says itself whether HTTP/2 follows.
        stops: returns whether no further request is taken.
        on_resume: called when whoever reads may go on.
        on_malformed: called when the client breaks the rules of the protocol.
    """

    def __init__(
        self,
        open_exchange: OpenExchange,
        *,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        write: Callable[[bytes], Awaitable[bool]],
        tell: Callable[[Event], Awaitable[None]],
        place: Callable[[], Awaitable[None]],
        peer: str | None,
        is_secure: bool,
        stops: Callable[[], bool],
        on_resume: Callable[[], None],
        on_malformed: Callable[[], None],
    ) -> None:
        self._open_exchange = open_exchange
        self._start_task = start
        self._write = write
        self._tell = tell
        self._place = place
        self._peer = peer
        self._is_secure = is_secure
        self._stops = stops
        self._on_resume = on_resume
        self._on_malformed = on_malformed
        self._serving = trio.CancelScope()
        self._has_begun = False
        self._incoming = Incoming()
        self._more: trio.Event | None = None
        self._is_full = False
        self._exchange: Exchange | None = None
        self._answer = AnswerBytes()
        self._keeps = True
        self._expects = False
        self._refusal: HeadRefused | None = None
        self._closes = False
        self._count = 0

    @property
    def room_bytes(self) -> int | None:
        """How much the client may still send ahead of its response; None while none is due."""
        if self._incoming.awaits_body or not self._has_begun or self._more is not None:
            return None
        room_bytes = max(0, MAX_AHEAD_BYTES - len(self._incoming.received))
        self._is_full = not room_bytes
        return room_bytes

    async def initiate(self) -> None:
        """Begin."""

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        if not isinstance(event, RawData):
            self._serving.cancel()
            # Whoever has said all may still listen: what came before has its turn, in which what
            # needs no waiting is answered.
            await trio.lowlevel.checkpoint()
        elif self._incoming.awaits_body:
            self._take_body(event.data)
        else:
            self._incoming.received += event.data
            if not (self._count or self._is_secure) and self._incoming.received.startswith(
                _PREFACE
            ):
                await self._turn_into_http2()
            if not self._has_begun:
                self._has_begun = True
                self._start_task(self._serve)
            elif self._more is not None:
                self._more.set()

    async def resume(self) -> None:
        """Go on with what the client sent ahead: the task that serves does, by itself."""

    async def headers_timed_out(self) -> None:
        """Answer a client that began a request and did not get to the end of its headers."""
        # What came in the same turn of the loop is about to be served, and may be whole.
        waits = self._more is not None and not self._more.is_set()
        if waits and self._incoming.received.strip():
            await self._refuse(too_late())

    async def place(self) -> None:
        """See :class:`.ClientSide`."""
        await self._place()

    async def invite(self) -> None:
        """See :class:`.ClientSide`."""
        if self._expects:
            self._expects = False
            await self._write_or_leave(_INVITATION)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """See :class:`.ClientSide`."""
        self._closes = (
            not self._keeps
            or self._incoming.awaits_body
            or self._count >= MAX_REQUESTS
            or self._stops()
        )
        self._answer.begin(status, headers, closes=self._closes)

    async def send(self, data: bytes, *, is_last: bool) -> None:
        """See :class:`.ClientSide`."""
        for piece in self._answer.pieces(data, is_last=is_last):
            await self._write_or_leave(piece)

    async def _write_or_leave(self, data: bytes) -> None:
        if not await self._write(data):
            self._serving.cancel()
            await trio.lowlevel.checkpoint()

    async def _serve(self) -> None:
        """Serve requests until the connection is to be closed, or the client has gone."""
        with self._serving:
            try:
                while not self._closes:
                    await self._serve_next()
            except HeadRefused as refusal:
                self._refuse_later(refusal)
        if self._refusal is not None:
            if not self._answer.has_begun:
                await self._refuse(self._refusal)
            await self._tell(Closed())
        elif self._closes:
            await self._tell(Closed())

    async def _serve_next(self) -> None:
        """Serve the next request, or wait for more of it."""
        head = self._incoming.next_head()
        if head is None:
            self._go_on_reading()  # it was full of blank lines
            self._more = trio.Event()
            await self._more.wait()
            self._more = None
            return
        await self._tell(Updated(idle=False))
        self._count += 1
        exchange = self._open(head)
        self._go_on_reading()  # a head is out of it, and perhaps a body
        try:
            await exchange.run()
        finally:
            self._exchange = None
        self._answer = AnswerBytes()
        if self._stops():
            self._closes = True
        if self._closes:
            return
        await self._tell(Updated(idle=True))
        if self._incoming.received:
            # Whoever sends many requests at once is not served all of them in one turn.
            await trio.lowlevel.checkpoint()

    def _go_on_reading(self) -> None:
        if self._is_full:
            self._is_full = False
            self._on_resume()

    def _open(self, head: Head) -> Exchange:
        """Open the exchange of a request, and give it what came of its body."""
        self._answer, self._keeps = AnswerBytes(head.method, head.version), head.keeps
        self._expects = head.expects
        target, _, query = head.target.partition(b"?")
        request = Request(
            head.method.decode(),
            target,
            query,
            head.version,
            head.headers,
            self._peer,
            head.length,
        )
        body = b""
        if self._incoming.awaits_body and self._incoming.received:
            # Before anybody serves it: a request whose body breaks here has one answer, as one
            # whose head does.
            self._expects = False
            body = self._incoming.take_body(self._incoming.received)
        exchange = self._exchange = self._open_exchange(request, self)
        if body or not self._incoming.awaits_body:
            exchange.take(body, is_last=not self._incoming.awaits_body)
        return exchange

    def _take_body(self, data: bytes) -> None:
        """Hand over what belongs to the body; what came behind it is the next request."""
        self._expects = False
        try:
            data = self._incoming.take_body(data)
        except HeadRefused as refusal:
            self._refuse_later(refusal)
            self._serving.cancel()
            return
        if self._exchange is not None:
            self._exchange.take(data, is_last=not self._incoming.awaits_body)

    async def _turn_into_http2(self) -> None:
        self._serving.cancel()
        await self._tell(Updated(idle=False))
        raise H2ProtocolAssumedError(self._incoming.received)

    def _refuse_later(self, refusal: HeadRefused) -> None:
        # What it knows of where it was raised knows this connection.
        self._refusal = refusal.with_traceback(None)

    async def _refuse(self, error: HeadRefused) -> None:
        """Tell the client what is wrong with its request; the connection cannot be used then."""
        self._on_malformed()
        await self._write(refusal_bytes(error))
