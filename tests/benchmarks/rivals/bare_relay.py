"""The floor: relays chats on trio, with the fastest parsers, and keeps no promise.

bare_relay.py PORT BACKEND_PORT    one task and one kept connection to the server for each client
"""

from __future__ import annotations

import sys
from typing import Any

import httptools
import msgspec
import trio

_decode, _encode = msgspec.json.decode, msgspec.json.encode
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Message:
    """Takes in one request or answer."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        body, self.body = self.body, []
        return body[0] if len(body) == 1 else b"".join(body)


class Relay:
    """One client's connection, and the one to the server that goes with it."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._client = client
        self._server = server

    async def run(self) -> None:
        message = Message()
        parser = httptools.HttpRequestParser(message)
        while data := await self._client.receive_some(65_536):
            parser.feed_data(data)
            if message.complete:
                message.complete = False
                await self._relay(_decode(message.take()))

    async def _relay(self, asked: dict[str, Any]) -> None:
        body = _encode(asked)
        await self._server.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = Message()
        parser = httptools.HttpResponseParser(answer)
        if asked.get("stream"):
            await self._client.send_all(_STREAM_HEAD)
        while not answer.complete:
            data = await self._server.receive_some(65_536)
            if not data:
                raise ConnectionError("the server left")
            parser.feed_data(data)
            if asked.get("stream"):
                await self._pass_on(answer.take())
        if asked.get("stream"):
            await self._client.send_all(b"0\r\n\r\n")
            return
        body = _encode(_decode(answer.take()))
        await self._client.send_all(_HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body))

    async def _pass_on(self, events: bytes) -> None:
        frames = [
            b"data: " + _encode(_decode(line[6:])) + b"\n\n"
            for line in events.split(b"\n\n")
            if line.startswith(b"data: {")
        ]
        if frames:
            data = b"".join(frames)
            await self._client.send_all(b"%x\r\n%s\r\n" % (len(data), data))


async def main(port: int, backend_port: int) -> None:
    async def serve(client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", backend_port)
        async with server:
            try:
                await Relay(client, server).run()
            except (ConnectionError, trio.BrokenResourceError):
                return

    await trio.serve_tcp(serve, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
