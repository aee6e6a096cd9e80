"""hypercorn's HTTP/1.1 and HTTP/2, with what this server needs otherwise.

Errors have the one shape; a client that hangs up is noticed also behind a pipelined request; a
response that is cut short resets its HTTP/2 stream; there are no WebSockets.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import h2.errors
import h2.events
import h2.exceptions
import h11
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Response, StreamClosed
from hypercorn.protocol.h2 import BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.answers import error_object, to_json
from ai_ticket_daemon.server.headers import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.protocol.events import Event as StreamEvent

# How much a client may send ahead of the response it waits for.
MAX_AHEAD_BYTES = 65_536

_WHY = {
    408: "The headers of the request did not arrive in time; send them faster.",
    431: "The headers of the request are too long; send fewer or shorter ones.",
    501: "Of all transfer encodings only chunked is understood.",
}


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


class Http1(H11Protocol):
    """HTTP/1.0 and 1.1."""

    def __init__(self, *args: Any, on_resume: Callable[[], None]) -> None:
        super().__init__(*args)
        self._pause = _Pause(on_resume)
        self.can_read = self._pause  # type: ignore[assignment]

    @property
    def is_full(self) -> bool:
        """Whether the client has sent as much ahead as it may."""
        return self._pause.paused and len(self.connection.trailing_data[0]) >= MAX_AHEAD_BYTES

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        with suppress(_Paused):
            await super().handle(event)

    async def resume(self) -> None:
        """Go on with what the client sent ahead."""
        with suppress(_Paused):
            await self._handle_events()

    async def headers_timed_out(self) -> None:
        """Answer a client that began a request and did not get to the end of its headers."""
        if self.connection.our_state is h11.IDLE and self.connection.trailing_data[0]:
            await self._send_error_response(408)

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response; say so if the connection cannot be used after it."""
        if isinstance(event, Response) and (
            self.connection.their_state is h11.SEND_BODY or self.context.terminated.is_set()
        ):
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _create_stream(self, request: h11.Request) -> None:
        if any(name == b"upgrade" for name, _ in request.headers):
            headers = [item for item in request.headers if item[0] != b"upgrade"]
            request = h11.Request(
                method=request.method,
                target=request.target,
                headers=headers,
                http_version=request.http_version,
            )
        await super()._create_stream(request)

    async def _send_error_response(self, status_code: int) -> None:
        error = RequestRefused(
            ErrorCode.REQUEST_TIMEOUT if status_code == 408 else ErrorCode.INVALID_REQUEST,
            _WHY.get(status_code, "The request is not valid HTTP."),
        )
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


class _Buffer(StreamBuffer):
    """What waits for the client's permission to be sent on one HTTP/2 stream.

    hypercorn's own lets the writer go on after any small piece, and even after none, was taken
    out: the buffer of a client that does not read would grow with the completion.
    """

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Http2(H2Protocol):
    """HTTP/2."""

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        await super().handle(event)
        if isinstance(event, Closed):
            # Whoever waits for the client's permission to send would wait for ever.
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response; reset the stream of one that was cut short."""
        if isinstance(event, StreamClosed):
            buffer = self.stream_buffers.get(event.stream_id)
            if event.stream_id in self.streams and buffer is not None and not buffer.complete:
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.reset_stream(
                        event.stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR
                    )
                    await self._flush()
                await buffer.close()
        await super().stream_send(event)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                # The body of a request that is answered already; give its room back.
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id
                )
            else:
                await super()._handle_events([event])
        await self._flush()

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        if _is_servable(request):
            await super()._create_stream(request)
            # In time: nothing has waited since, so the app has not run yet.
            self.stream_buffers[request.stream_id] = _Buffer(self.context.event_class)
        else:
            self.connection.reset_stream(request.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)


def _is_servable(request: h2.events.RequestReceived) -> bool:
    """Tell whether hypercorn can make sense of ``request``: no CONNECT, nothing but ASCII."""
    pseudo = {bytes(name): bytes(value) for name, value in request.headers or ()}
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    return method.isascii() and path.isascii() and path != b"" and method.upper() != b"CONNECT"


class Protocol:
    """The protocol a connection speaks; HTTP/1.1 may turn into HTTP/2 with its first request.

    Args:
        arguments: what hypercorn's protocols are made with.
        use_h2: the client asked for HTTP/2 during the TLS handshake.
        on_resume: called when :meth:`resume` should be called, by whoever reads.
    """

    def __init__(
        self, arguments: tuple[Any, ...], *, use_h2: bool, on_resume: Callable[[], None]
    ) -> None:
        self._arguments = arguments
        self._protocol: Http1 | Http2 = (
            Http2(*arguments) if use_h2 else Http1(*arguments, on_resume=on_resume)
        )

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read before :meth:`resume`."""
        return isinstance(self._protocol, Http1) and self._protocol.is_full

    async def initiate(self) -> None:
        """Begin."""
        await self._protocol.initiate()

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        await self._turning(self._protocol.handle(event))

    async def resume(self) -> None:
        """Go on with what the client sent ahead."""
        if isinstance(self._protocol, Http1):
            await self._turning(self._protocol.resume())

    async def headers_timed_out(self) -> None:
        """Tell a client that was too slow, if it can be told."""
        if isinstance(self._protocol, Http1):
            await self._protocol.headers_timed_out()

    async def _turning(self, step: Awaitable[None]) -> None:
        try:
            await step
        except H2ProtocolAssumedError as error:
            self._protocol = Http2(*self._arguments)
            await self._protocol.initiate()
            if error.data:
                await self._protocol.handle(RawData(data=error.data))
        except H2CProtocolRequiredError as error:
            self._protocol = Http2(*self._arguments)
            await self._protocol.initiate(error.headers, error.settings)
            if error.data:
                await self._protocol.handle(RawData(data=error.data))
