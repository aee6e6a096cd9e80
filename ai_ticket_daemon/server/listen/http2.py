"""hypercorn's HTTP/2, with what this server needs otherwise.

A response that is cut short resets its stream; priorities of streams (RFC 9113 section 5.3.2 has
done away with them) are not read; there are no WebSockets and no pushes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Request, StreamClosed
from hypercorn.protocol.h2 import BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.typing import ConnectionState
from hypercorn.utils import filter_pseudo_headers
from priority.priority import PriorityTree

from ai_ticket_daemon.server.listen.connection_state import INVITE
from ai_ticket_daemon.server.listen.remote_settings import BoundedEncoder, RemoteSettings
from ai_ticket_daemon.server.listen.streams import open_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.protocol.events import Event as StreamEvent


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
    """HTTP/2.

    Args:
        arguments: what hypercorn's protocol is made with.
        on_malformed: called when the client breaks the rules of the protocol.
    """

    def __init__(self, *arguments: Any, on_malformed: Callable[[], None]) -> None:
        super().__init__(*arguments)
        self._on_malformed = on_malformed
        # As hypercorn has them, but without the offer to open tunnels.
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: (
                    self.config.h2_max_concurrent_streams
                ),
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: self.config.h2_max_header_list_size,
            },
        )
        self.connection.remote_settings = RemoteSettings()
        self.connection.encoder = BoundedEncoder()
        # No stream is ever one too many for it: their number is bounded where they are made.
        self.priority = PriorityTree(self.config.keep_alive_max_requests + 2)

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        if isinstance(event, RawData):
            try:
                events = self.connection.receive_data(event.data)
            except h2.exceptions.ProtocolError:
                self._on_malformed()
                await self._flush()
                await self.send(Closed())
            else:
                await self._handle_events(events)
            return
        await super().handle(event)
        if isinstance(event, Closed):
            # Whoever waits for the client's permission to send would wait for ever.
            for buffer in self.stream_buffers.values():
                await buffer.close()
            # Its own methods, by which it would keep itself until a collection.
            self.connection._frame_dispatch_table.clear()  # noqa: SLF001

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
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.acknowledge_received_data(
                        event.flow_controlled_length or 0, event.stream_id
                    )
            elif not isinstance(event, h2.events.PriorityUpdated):
                await super()._handle_events([event])
        await self._flush()

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        if self.keep_alive_requests > self.config.keep_alive_max_requests:
            return  # they came behind the last one, which the client is being told
        pseudo = {bytes(name): bytes(value) for name, value in request.headers or ()}
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if not method.isascii() or not path.isascii() or not path or method == b"CONNECT":
            self._on_malformed()
            self.connection.reset_stream(request.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        stream_id = request.stream_id
        stream = self.streams[stream_id] = open_stream(self, stream_id)
        self.stream_buffers[stream_id] = _Buffer(self.context.event_class)
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)

        async def invite() -> None:
            if (b"expect", b"100-continue") in headers:
                with suppress(h2.exceptions.ProtocolError):
                    self.connection.send_headers(stream_id, [(b":status", b"100")])
                    await self._flush()

        headers = filter_pseudo_headers(list(request.headers or ()))
        await stream.handle(
            Request(
                stream_id=stream_id,
                headers=headers,
                http_version="2",
                method=method.decode(),
                raw_path=path,
                state=ConnectionState({**self.connection_state, INVITE: invite}),
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()
