"""hypercorn's HTTP/1.0 and 1.1, for apps of ASGI: the sockets of the operator.

Errors have the one shape; a client that hangs up is noticed also behind a pipelined request; what
can be read in two ways is refused; there are no upgrades and no WebSockets.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import h11
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol
from hypercorn.typing import ConnectionState

from ai_ticket_daemon.server.answers import error_object, to_json
from ai_ticket_daemon.server.headers import JSON_TYPE
from ai_ticket_daemon.server.listen.connection_state import INVITE
from ai_ticket_daemon.server.listen.framing import (
    HeadRefused,
    check_framing,
    check_size,
    malformed,
    too_late,
    too_long,
    unknown_coding,
)
from ai_ticket_daemon.server.listen.http1 import MAX_AHEAD_BYTES
from ai_ticket_daemon.server.listen.streams import open_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.protocol.events import Event as StreamEvent

_FIRST_LINE_BYTES = len(b"  HTTP/1.1")
_REFUSALS = {408: too_late, 431: too_long, 501: unknown_coding}


class _Paused(Exception):
    """The next request has arrived, and the one before it is not answered yet."""


class _Pause:
    """Stands where hypercorn waits until the next request may be read.

    Waiting there would stop all reading, and with it the news that the client has gone. So the
    wait ends at once, and whoever reads is told when to come back.
    """

    def __init__(self, on_resume: Callable[[], None]) -> None:
        self.paused = False
        self._on_resume = on_resume

    async def clear(self) -> None:
        self.paused = True

    async def wait(self) -> None:
        raise _Paused

    async def set(self) -> None:
        if self.paused:
            self.paused = False
            self._on_resume()


class _Reader(h11.Connection):
    """h11's connection, which skips empty lines before a request (RFC 9112 section 2.2)."""

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            data = self._receive_buffer._data  # noqa: SLF001 - it is shown as a copy only
            while data.startswith((b"\r\n", b"\n")):
                self._receive_buffer.maybe_extract_lines()
            if data == b"\r":
                return h11.NEED_DATA
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            # h11 raises it from a method of its own: it is known to a frame that it knows.
            raise error.with_traceback(None) from None

    @property
    def ahead_bytes(self) -> int:
        """How much has come that is not read yet."""
        return len(self._receive_buffer)

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Nobody is asked for a body just because it is there to be asked for: see ``invite``."""
        return False


class AsgiHttp1(H11Protocol):
    """HTTP/1.0 and 1.1.

    Args:
        arguments: what hypercorn's protocol is made with.
        on_resume: called when :meth:`resume` should be called, by whoever reads.
        on_malformed: called when the client breaks the rules of the protocol.
    """

    def __init__(
        self,
        *arguments: Any,
        on_resume: Callable[[], None],
        on_malformed: Callable[[], None],
    ) -> None:
        super().__init__(*arguments)
        self._on_malformed = on_malformed
        self.connection: _Reader = _Reader(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )
        self._pause = _Pause(on_resume)
        self.can_read = self._pause  # type: ignore[assignment]

    @property
    def room_bytes(self) -> int | None:
        """How much the client may still send ahead of its response; None while none is due."""
        if self.connection.their_state is not h11.DONE:
            return None
        return max(0, MAX_AHEAD_BYTES - self.connection.ahead_bytes)

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        await self._unless_refused(super().handle(event))

    async def resume(self) -> None:
        """Go on with what the client sent ahead."""
        await self._unless_refused(self._handle_events())

    async def headers_timed_out(self) -> None:
        """Answer a client that began a request and did not get to the end of its headers."""
        if self.connection.our_state is h11.IDLE and self.connection.trailing_data[0].strip():
            await self._send_error_response(408)

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response; say so if the connection cannot be used after it."""
        if isinstance(event, Response) and (
            self.connection.their_state is h11.SEND_BODY or self.context.terminated.is_set()
        ):
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _unless_refused(self, step: Awaitable[None]) -> None:
        try:
            await step
        except _Paused:
            pass
        except HeadRefused as refusal:
            await self._refuse(refusal, refusal.http_status)
            await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        is_http2 = (event.method, event.target, event.http_version) == (b"PRI", b"*", b"2.0")
        # Over TLS, the handshake says which protocol is spoken.
        if is_http2 and not event.headers and not self.ssl:
            raise H2ProtocolAssumedError(
                b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0]
            )

    async def _create_stream(self, request: h11.Request) -> None:
        headers = list(request.headers)
        check_framing(request.http_version, headers)
        check_size(len(request.method) + len(request.target) + _FIRST_LINE_BYTES, headers)
        self.stream = open_stream(self, STREAM_ID)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode(),
                method=request.method.decode(),
                raw_path=request.target,
                state=ConnectionState({**self.connection_state, INVITE: self._invite}),
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _invite(self) -> None:
        """Ask the client for the body, if it waits for that."""
        if self.connection.client_is_waiting_for_100_continue:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def _send_error_response(self, status_code: int) -> None:
        await self._refuse(_REFUSALS.get(status_code, malformed)(), status_code)

    async def _refuse(self, error: HeadRefused, status_code: int) -> None:
        self._on_malformed()
        body = to_json(error_object(error, event_id=None, trace_id=None))
        headers = [
            (b"content-type", JSON_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        # A response to HEAD has no body, whatever its length says.
        with suppress(h11.LocalProtocolError):
            await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())
