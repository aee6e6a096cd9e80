"""HTTP/1.0 as KoboldCPP speaks it: one request per connection, headers to the letter, EOF ends."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import trio

if TYPE_CHECKING:
    from .faults import Faults

__all__ = [
    "BAD_INPUT",
    "BUSY",
    "GET_NOT_FOUND",
    "NEWER_STREAM_HEADERS",
    "OK_EMPTY",
    "POST_NOT_FOUND",
    "STREAM_HEADERS",
    "TOO_BIG",
    "UNAUTHORIZED",
    "ClientGone",
    "Connection",
    "Request",
    "bad_gateway",
    "error_page",
    "json_answer",
    "newer_not_found",
    "text_answer",
]

_READ_BYTES = 65536
_HEAD_LIMIT_BYTES = 65536
_JSON_HEAD = b"cache-control: no-store\r\ncontent-type: application/json\r\n\r\n"
_HTML_HEAD = b"cache-control: no-store\r\ncontent-type: text/html\r\n\r\n"
_REASONS = {200: "OK", 400: "Bad Request", 501: "Not Implemented"}


def _error(status: str, detail: dict[str, str]) -> bytes:
    return b"HTTP/1.0 %s\r\n%s%s" % (
        status.encode(),
        _JSON_HEAD,
        json.dumps({"detail": detail}).encode(),
    )


UNAUTHORIZED = _error(
    "401 Unauthorized",
    {
        "error": "Unauthorized",
        "msg": "Authentication key is missing or invalid.",
        "type": "unauthorized",
    },
)
BUSY = _error(
    "503 Service Unavailable",
    {"msg": "Server is busy; please try again later.", "type": "service_unavailable"},
)
BAD_INPUT = _error(
    "500 Internal Server Error", {"msg": "Error parsing input.", "type": "bad_input"}
)
TOO_BIG = _error(
    "500 Internal Server Error",
    {"msg": "Payload is too big. Max payload size is 32MB.", "type": "bad_input"},
)
OK_EMPTY = b"HTTP/1.0 200 OK\r\n" + _HTML_HEAD
POST_NOT_FOUND = b"HTTP/1.0 404 Not Found\r\n" + _HTML_HEAD
GET_NOT_FOUND = POST_NOT_FOUND + (
    b"Error: HTTP Server is running, but this endpoint does not exist. Please check the URL."
)
STREAM_HEADERS = (
    b"HTTP/1.0 200 OK\r\ncache-control: no-cache\r\nconnection: keep-alive\r\n"
    b"cache-control: no-store\r\ncontent-type: text/event-stream\r\n\r\n"
)
NEWER_STREAM_HEADERS = (
    b"HTTP/1.0 200 OK\r\nx-accel-buffering: no\r\ncache-control: no-cache\r\n"
    b"connection: keep-alive\r\ncache-control: no-store\r\ncontent-type: text/event-stream\r\n\r\n"
)
_ERROR_PAGE = """\
<!DOCTYPE HTML>
<html lang="en">
    <head>
        <meta charset="utf-8">
        <title>Error response</title>
    </head>
    <body>
        <h1>Error response</h1>
        <p>Error code: {code}</p>
        <p>Message: {message}.</p>
        <p>Error code explanation: {code} - {explanation}.</p>
    </body>
</html>
"""


def json_answer(payload: Any, status: int = 200) -> bytes:
    """A complete answer with a length; the JSON is pure ASCII as the server's is."""
    body = json.dumps(payload).encode()
    return b"HTTP/1.0 %d %s\r\ncontent-length: %d\r\n%s%s" % (
        status,
        _REASONS[status].encode(),
        len(body),
        _JSON_HEAD,
        body,
    )


def text_answer(text: str) -> bytes:
    """A complete answer in plain text."""
    return (
        f"HTTP/1.0 200 OK\r\ncontent-length: {len(text)}\r\ncache-control: no-store\r\n"
        f"content-type: text/plain\r\n\r\n{text}"
    ).encode()


def bad_gateway() -> bytes:
    """What a router answers while the process behind it is away."""
    page = "<!DOCTYPE html><html><head><title>502 - KoboldCpp</title></head></html>"
    return (
        f"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html; charset=utf-8\r\n"
        f"content-length: {len(page)}\r\n\r\n{page}"
    ).encode()


def newer_not_found(path: str) -> bytes:
    """What version 1.115 says to a GET of a path it does not know."""
    return (
        POST_NOT_FOUND
        + (
            "Error: KoboldCpp HTTP Server is running, but this endpoint does not exist. "
            'Please check the URL and METHOD.<br><a href="/api">[Read API documentation '
            "here]</a><br><br>"
            f"Current path: {path}"
        ).encode()
    )


def error_page(code: int, message: str, explanation: str) -> bytes:
    """The HTML page for methods and requests the server cannot make sense of."""
    body = _ERROR_PAGE.format(code=code, message=message, explanation=explanation).encode()
    return (
        b"HTTP/1.0 %d %s\r\nconnection: close\r\ncontent-type: text/html;charset=utf-8\r\n"
        b"content-length: %d\r\ncache-control: no-store\r\n\r\n%s"
    ) % (code, message.encode(), len(body), body)


class ClientGone(Exception):
    """The peer closed or broke the connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request line, the headers and whatever was read of the body so far."""

    method: str
    path: str
    headers: dict[str, str]
    surplus: bytes

    @property
    def length_bytes(self) -> int:
        """Announced length of the body; 0 without a usable announcement."""
        announced = self.headers.get("content-length", "")
        return int(announced) if announced.isdigit() else 0


class Connection:
    """One accepted socket; everything on it stands still while the server is frozen."""

    __slots__ = ("_faults", "_newer", "_routed", "_socket", "answered")

    def __init__(
        self,
        sock: trio.socket.SocketType,
        faults: Faults,
        *,
        newer: bool = False,
        routed: bool = False,
    ) -> None:
        self._socket = sock
        self._faults = faults
        self._newer = newer
        self._routed = routed
        self.answered = False

    async def read_request(self) -> Request | None:
        """Read up to the blank line after the headers; None if it does not look like HTTP.

        Raises:
            ClientGone: The peer closed before the headers were complete.
        """
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _HEAD_LIMIT_BYTES:
                return None
            data += await self._receive()
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        words = first.split()
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return None
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        path = words[1].partition("?")[0] if self._newer else words[1]
        return Request(words[0], path.rstrip("/"), headers, data[end + 4 :])

    async def read_body(self, request: Request) -> bytes:
        """Read the announced body, for as long as it takes; shorter if the peer stops sending."""
        if self._newer and request.headers.get("transfer-encoding") == "chunked":
            return await self._read_chunks(request.surplus)
        missing = request.length_bytes - len(request.surplus)
        if missing <= 0:
            return request.surplus[: request.length_bytes]
        parts = [request.surplus]
        while missing > 0:
            try:
                parts.append(await self._receive())
            except ClientGone:
                break
            missing -= len(parts[-1])
        return b"".join(parts)

    async def _read_chunks(self, data: bytes) -> bytes:
        while not data.endswith(b"0\r\n\r\n"):
            data += await self._receive()
        body = b""
        while data:
            size, _, data = data.partition(b"\r\n")
            length = int(size, 16)
            body, data = body + data[:length], data[length + 2 :]
        return body

    async def wait_until_closed(self) -> None:
        """Return when the peer has gone, and not before."""
        try:
            while True:
                await self._receive()
        except ClientGone:
            return

    async def _receive(self) -> bytes:
        try:
            data = await self._socket.recv(_READ_BYTES)
        except (OSError, trio.ClosedResourceError) as error:
            raise ClientGone from error
        if self._faults.frozen:
            await self._faults.thawed()
        if not data:
            raise ClientGone
        return data

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            ClientGone: The peer has closed and the kernel knows it already.
        """
        if self._faults.frozen:
            await self._faults.thawed()
        if self._routed and not self.answered:
            data = data.replace(b"HTTP/1.0", b"HTTP/1.1", 1)
            data = data.replace(b"connection: keep-alive\r\n", b"", 1)
        self.answered = True
        try:
            sent = await self._socket.send(data)
            while sent < len(data):
                sent += await self._socket.send(data[sent:])
        except (OSError, trio.ClosedResourceError) as error:
            raise ClientGone from error

    def close(self, *, reset: bool = False) -> None:
        """Close at once, with a reset instead of an orderly end if wanted; twice is harmless."""
        if reset and self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def cut(self, *, reset: bool) -> NoReturn:
        """Break the connection, and let the server find out as if the client had done it."""
        self.close(reset=reset)
        raise ClientGone
