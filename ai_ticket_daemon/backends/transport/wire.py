"""The HTTP edge: sends one request to one server.

It drives httpx's transport, not its client: no redirect is followed, no cookie kept, no proxy taken
from the environment, and the cost of a request stays small. Nothing outside this module and
``translate.py`` knows httpx.
"""

from __future__ import annotations

import json
import ssl
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.backends.bounds import SHORT_ANSWER_BYTES
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.pieces import read_in_pieces
from ai_ticket_daemon.backends.transport.replies import (
    parse_json,
    refuse_encoded,
    refuse_error,
    refuse_error_status,
)
from ai_ticket_daemon.backends.transport.translate import FOREIGN, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from ai_ticket_daemon.config.values.secret import Secret

CALL_TIMEOUT_SECONDS = 5.0
"""Longest time for a short call, one that needs no generation slot."""
# llama.cpp closes an idle connection after 5 s; a request sent just then would be lost.
_KEEPALIVE_SECONDS = 3.0
_KEPT_CONNECTIONS = 16
# What h11 knows of the connection behind a stream of httpx; neither httpx nor httpcore tells.
_http_state = attrgetter("_httpcore_stream._stream._connection._h11_state")
_LONGEST_TURN_SECONDS = 0.01


class _Body(httpx.AsyncByteStream):
    """A request body that tells when it is taken: then the server is connected and will read it."""

    def __init__(self, content: bytes, on_send: Callable[[], None] | None) -> None:
        self._content: bytes | None = content
        self._on_send = on_send

    # No generator: one that is left half-way, because the connection broke, would be lying about.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, None
        if content is None:
            raise StopAsyncIteration
        if self._on_send is not None:
            self._on_send()
        return content


class Answer:
    """An answer whose head was read; ``read_some`` gives its body. To be closed in any case."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        stream = response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError(f"the transport gave a {type(stream).__name__}")
        self._stream = stream
        self._chunks = aiter(stream)
        self._ended = False
        self._bytes = 0
        self._yielded_at = trio.current_time()

    async def read_some(self, max_bytes: int) -> bytes:
        """Return the next piece of the body; empty at its end.

        Raises:
            AttemptFailed: the connection broke, or the body exceeds ``max_bytes`` altogether.
        """
        # What lies there already is given without waiting: a server that sends it in crumbs must
        # not hold up everybody else.
        if trio.current_time() - self._yielded_at > _LONGEST_TURN_SECONDS:
            await trio.lowlevel.checkpoint()
            self._yielded_at = trio.current_time()
        try:
            chunk = await anext(self._chunks, b"")
        except FOREIGN as error:
            self._ended = True
            raise translate(error, answering=True) from error
        if not chunk:
            self._ended = True
        self._bytes += len(chunk)
        if self._bytes > max_bytes:
            raise AttemptFailed.seen(Seen.TOO_LARGE)
        return chunk

    async def read_all(self, max_bytes: int) -> bytes:
        """Return the whole body; raises as :meth:`read_some` does."""
        body = bytearray()
        while chunk := await self.read_some(max_bytes):
            body += chunk
        return bytes(body)

    async def aclose(self) -> None:
        """Give the connection back or close it."""
        # Also after the last byte: only this takes the connection out of httpcore's pool.
        with trio.CancelScope(shield=True):
            _give_up_if_more_came(self._stream)
            await self._stream.aclose()
            if self._ended:
                return
            # The generators inside httpx end only when they are run to their end.
            try:
                while await anext(self._chunks, b""):
                    pass
            except FOREIGN:
                self._ended = True


def _give_up_if_more_came(stream: httpx.AsyncByteStream) -> None:
    """Have the connection closed if bytes lie behind the end of the answer.

    Nobody asked for them, and httpcore would read them as the answer to the next request: one
    ticket would be given the text of another.
    """
    connection = _http_state(stream)
    behind, _ = connection.trailing_data
    if behind:
        connection.send_failed()


class Wire:
    """Sends requests to one server.

    Args:
        url: the server's base URL; a path in it is kept.
        password: sent as bearer token, if any.
        connect_timeout_seconds: for the name, the connection and TLS together.
        keep_alive: whether connections are kept for the next request. KoboldCPP binds a thread
            to each connection, so it must be False there.
    """

    def __init__(
        self,
        url: str,
        *,
        password: Secret | None = None,
        connect_timeout_seconds: float = 5.0,
        keep_alive: bool = False,
    ) -> None:
        self._base = httpx.URL(url.rstrip("/"))
        self._urls: dict[str, httpx.URL] = {}
        self._headers = [(b"Host", self._base.netloc), (b"Accept-Encoding", b"identity")]
        if not keep_alive:
            self._headers.append((b"Connection", b"close"))
        if password is not None:
            self._headers.append((b"Authorization", b"Bearer " + password.reveal().encode()))
        self._extensions = {"timeout": {"connect": connect_timeout_seconds}}
        self._transport = httpx.AsyncHTTPTransport(
            # Loading the authorities costs 20 ms, and a plain URL never needs them.
            verify=ssl.create_default_context()
            if self._base.scheme == "https"
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=_KEPT_CONNECTIONS if keep_alive else 0,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            ),
        )
        read_in_pieces(self._transport)

    async def send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        on_send: Callable[[], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer once its head has come.

        Only connecting is limited in time; the caller limits the rest.

        Args:
            method: ``GET`` or ``POST``.
            path: below the base URL, one of a fixed few.
            content: JSON, if the request has a body.
            on_send: called when the connection is there and the body is about to go out.
            headers: sent along, besides those of the server.

        Raises:
            AttemptFailed: no answer came.
        """
        url = self._urls.get(path)
        if url is None:
            raw_path = self._base.raw_path.rstrip(b"/") + path.encode()
            url = self._urls[path] = self._base.copy_with(raw_path=raw_path)
        lines = [*self._headers]
        if content is not None:
            length = str(len(content)).encode()
            lines += [(b"Content-Type", b"application/json"), (b"Content-Length", length)]
        if headers:
            lines += [(name.encode(), value.encode()) for name, value in headers.items()]
        request = httpx.Request(
            method,
            url,
            headers=lines,
            stream=_Body(content or b"", on_send),
            extensions=self._extensions,
        )
        try:
            return Answer(await self._transport.handle_async_request(request))
        except httpx.LocalProtocolError as error:
            # Without its cause, whose message may show the header with the credential.
            raise translate(error, answering=False) from None
        except FOREIGN as error:
            raise translate(error, answering=False) from error

    async def call(
        self,
        method: str,
        path: str,
        payload: dict[str, Any] | None = None,
        *,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        max_bytes: int = SHORT_ANSWER_BYTES,
    ) -> dict[str, Any]:
        """Make a short call, one that needs no generation slot, and return its JSON object.

        Raises:
            AttemptFailed: no answer in time, not 200, too long, or not a JSON object.
        """
        value = parse_json(
            await self.fetch(
                method, path, payload, timeout_seconds=timeout_seconds, max_bytes=max_bytes
            )
        )
        if not isinstance(value, dict):
            raise AttemptFailed.seen(Seen.WRONG_SHAPE)
        refuse_error(value)
        return value

    async def fetch(
        self,
        method: str,
        path: str,
        payload: dict[str, Any] | None = None,
        *,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        max_bytes: int = SHORT_ANSWER_BYTES,
    ) -> bytes:
        """Make a short call and return the body of its answer.

        Raises:
            AttemptFailed: no answer in time, not 200, or too long.
        """
        content = None if payload is None else json.dumps(payload).encode()
        with trio.move_on_after(timeout_seconds):
            answer = await self.send(method, path, content)
            try:
                await refuse_error_status(answer)
                refuse_encoded(answer)
                return await answer.read_all(max_bytes)
            finally:
                await answer.aclose()
        raise AttemptFailed.seen(Seen.NO_REPLY)

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        await self._transport.aclose()
