"""A server that answers with exactly the bytes it is told to, and then does as it is told."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

MOST_BYTES = 64 * 1024 * 1024
"""What an endless answer sends at the most, if nobody stops it."""


class Then(Enum):
    """What follows the bytes."""

    CLOSE = "close"
    HALF_CLOSE = "half close"
    RESET = "reset"
    HANG = "hang"


@dataclass(frozen=True)
class Odd:
    """An answer in bytes.

    Args:
        raw: the bytes, status line and all.
        then: what follows.
        endless: sent again and again until the client leaves.
        crumbs: send the bytes one by one, as fast as the client takes them.
        early: answer before the request was read.
    """

    raw: bytes = b""
    then: Then = Then.CLOSE
    endless: bytes = b""
    crumbs: bool = False
    early: bool = False


@dataclass
class HostileServer:
    """The server; ``odd`` says what it answers at which path, ``seen`` what it was asked.

    ``bodies`` has the body of each request in ``seen``.
    ``opened`` and ``closed`` count the connections to it.
    """

    port: int
    odd: dict[str, Odd]
    scheme: str = "http"
    seen: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


@asynccontextmanager
async def open_hostile_server(
    odd: Mapping[str, Odd], tls: ssl.SSLContext | None = None
) -> AsyncIterator[HostileServer]:
    """Serve on a port of loopback while the block runs."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = HostileServer(listener.socket.getsockname()[1], dict(odd))
    listeners: list[trio.abc.Listener[Stream]] = [listener]
    if tls is not None:
        server.scheme = "https"
        listeners = [trio.SSLListener(listener, tls, https_compatible=True)]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, partial(_serve, server), listeners))
        yield server
        nursery.cancel_scope.cancel()


async def _serve(server: HostileServer, stream: Stream) -> None:
    server.opened += 1
    try:
        async with stream:
            while await _answer(server, stream):
                pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # The client had enough.
    finally:
        server.closed += 1


async def _answer(server: HostileServer, stream: Stream) -> bool:
    """Answer one request; return whether the connection stays open for another."""
    head = await _read_head(stream)
    if head is None:
        return False
    path = head.split(b" ", 2)[1].decode()
    odd = server.odd.get(path) or server.odd.get("*") or Odd(b"HTTP/1.1 404 Not Found\r\n\r\n")
    body = b"" if odd.early else await _read_body(stream, head)
    server.seen.append(head)
    server.bodies.append(body)
    at_once = odd.then is Then.CLOSE and not (odd.crumbs or odd.early)
    if at_once and isinstance(stream, trio.SocketStream):
        # The end goes out with the last bytes: nobody takes the connection for a kept one between.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    if odd.crumbs:
        for byte in odd.raw:
            await stream.send_all(bytes([byte]))
    else:
        await stream.send_all(odd.raw)
    if odd.endless:
        for _ in range(MOST_BYTES // len(odd.endless)):
            await stream.send_all(odd.endless)
    match odd.then:
        case Then.HANG:
            return True  # For the next request, if there is one.
        case Then.RESET:
            assert isinstance(stream, trio.SocketStream)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        case Then.HALF_CLOSE:
            assert isinstance(stream, trio.SocketStream)
            await stream.send_eof()
            while await stream.receive_some(65_536):
                pass
    return False


async def _read_head(stream: Stream) -> bytes | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await stream.receive_some(1)
        if not byte:
            return None
        head += byte
    return head


async def _read_body(stream: Stream, head: bytes) -> bytes:
    left = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            left = int(value)
    body = bytearray()
    while left:
        body += (part := await stream.receive_some(left))
        if not part:
            break
        left -= len(part)
    return bytes(body)
