"""A client that sends the frames of HTTP/2 that a test wants, also such as no client should."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import trio

from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_ticket_daemon.testing.http import Served

REQUEST = {":method": "GET", ":scheme": "http", ":authority": "a", ":path": "/live"}


@dataclass
class Answered:
    """What came back on one stream; ``reset`` is the code of a reset, if it was one."""

    informational: list[int] = field(default_factory=list)
    status: int | None = None
    body: bytes = b""
    reset: int | None = None
    ended: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


def _status(event: h2.events.ResponseReceived | h2.events.InformationalResponseReceived) -> int:
    return int(next(value for name, value in event.headers or () if str(name) == ":status"))


class Http2Client:
    """One connection, in clear text with prior knowledge."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        # As it is told, unchecked.
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.streams: dict[int, Answered] = {}
        self.settings: dict[int, int] = {}
        self.goaway: int | None = None
        self.closed = False

    @classmethod
    async def open(cls, served: Served) -> Http2Client:
        client = cls(await trio.open_tcp_stream("127.0.0.1", served.port))
        served.client(client.stream)
        client.connection.initiate_connection()
        await client.flush()
        return client

    async def flush(self) -> None:
        with trio.fail_after(GUARD_SECONDS):
            await self.stream.send_all(self.connection.data_to_send())

    async def raw(self, data: bytes) -> None:
        with trio.fail_after(GUARD_SECONDS):
            await self.stream.send_all(data)

    async def ask(
        self,
        *extra: tuple[str, str],
        end: bool = True,
        body: bytes = b"",
        pseudo: Mapping[str, str | None] | None = None,
    ) -> int:
        """Send a request; ``pseudo`` replaces (or, with None, leaves out) pseudo-headers."""
        fields = REQUEST | {f":{name}": value for name, value in (pseudo or {}).items()}
        headers = [(name, value) for name, value in fields.items() if value is not None]
        stream_id = self.connection.get_next_available_stream_id()
        self.streams[stream_id] = Answered()
        self.connection.send_headers(stream_id, [*headers, *extra], end_stream=end and not body)
        if body:
            self.connection.send_data(stream_id, body, end_stream=end)
        await self.flush()
        return stream_id

    async def receive(self) -> None:
        """Take in what comes next."""
        with trio.fail_after(GUARD_SECONDS):
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
        if not data:
            self.closed = True
            return
        for event in self.connection.receive_data(data):
            self._note(event)
        with trio.move_on_after(GUARD_SECONDS):
            try:
                await self.stream.send_all(self.connection.data_to_send())
            except trio.BrokenResourceError:
                self.closed = True

    def _note(self, event: h2.events.Event) -> None:
        answered = self.streams.get(getattr(event, "stream_id", None) or 0, Answered())
        match event:
            case h2.events.RemoteSettingsChanged():
                self.settings |= {
                    int(code): change.new_value for code, change in event.changed_settings.items()
                }
            case h2.events.InformationalResponseReceived():
                answered.informational.append(_status(event))
            case h2.events.ResponseReceived():
                answered.status = _status(event)
            case h2.events.DataReceived():
                answered.body += event.data
            case h2.events.StreamEnded():
                answered.ended = True
            case h2.events.StreamReset():
                answered.reset, answered.ended = int(event.error_code or 0), True
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code or 0)

    async def answer(self, stream_id: int) -> Answered:
        """Return what a request was answered, or how its connection ended instead."""
        while not (self.streams[stream_id].ended or self.closed or self.goaway is not None):
            await self.receive()
        return self.streams[stream_id]

    async def until_closed(self) -> None:
        while not self.closed:
            await self.receive()
