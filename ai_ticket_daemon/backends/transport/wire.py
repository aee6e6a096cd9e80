"""The HTTP edge: sends one request to one server.

It drives httpx's transport, not its client: no redirect is followed, no cookie kept, no proxy taken
from the environment, and the cost of a request stays small. In the daemon,
only this package knows httpx.
"""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.backends.bounds import SHORT_ANSWER_BYTES
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.answer import Answer
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
