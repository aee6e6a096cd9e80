"""The HTTP edge: sends one request to one server.

No redirect is followed, no cookie kept, and no proxy taken from the environment.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.backends.bounds import SHORT_ANSWER_BYTES
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.address import address_of
from ai_ticket_daemon.backends.transport.answer import Answer
from ai_ticket_daemon.backends.transport.connection import connect
from ai_ticket_daemon.backends.transport.head import is_sendable
from ai_ticket_daemon.backends.transport.kept import MOST_KEPT, KeptConnections
from ai_ticket_daemon.backends.transport.replies import (
    parse_json,
    refuse_encoded,
    refuse_error,
    refuse_error_status,
)
from ai_ticket_daemon.backends.transport.translate import FOREIGN, Stage, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.backends.transport.connection import Connection
    from ai_ticket_daemon.config.values.secret import Secret

CALL_TIMEOUT_SECONDS = 5.0
"""Longest time for a short call, one that needs no generation slot."""
_CLOSED = frozenset({Seen.NO_BYTE, Seen.BROKEN})


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
        self._address = address_of(url)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._kept = KeptConnections(MOST_KEPT if keep_alive else 0)
        lines = [b"Host: " + self._address.authority.encode(), b"Accept-Encoding: identity"]
        if not keep_alive:
            lines.append(b"Connection: close")
        credential = b"" if password is None else b"Bearer " + password.reveal().encode()
        if credential:
            lines.append(b"Authorization: " + credential)
        self._may_send = is_sendable(credential)
        self._lines = b"\r\n".join(lines)

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
        request = self._request(method, path, content, headers or {})
        kept = self._kept.take()
        if kept is not None:
            try:
                return await self._ask(kept, request, on_send)
            except AttemptFailed as failure:
                # The server may have closed it at the same time. What only asks is asked again; a
                # generation is not, since nobody knows whether it has begun.
                if method != "GET" or failure.observation.seen not in _CLOSED:
                    raise
        return await self._ask(await self._connect(), request, on_send)

    async def _ask(
        self, connection: Connection, request: bytes | None, on_send: Callable[[], None] | None
    ) -> Answer:
        answer: Answer | None = None
        try:
            if request is None:
                raise AttemptFailed.seen(Seen.NOT_HTTP)
            if on_send is not None:
                on_send()
            head, received = await connection.ask(request)
            answer = Answer(head, received, connection, self._kept.give)
        except FOREIGN as error:
            raise translate(error, Stage.ASKING) from error
        finally:
            if answer is None:
                connection.close()
        return answer

    def _request(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]
    ) -> bytes | None:
        """Return the bytes of a request; None if one of its headers cannot be sent."""
        lines = [f"{method} {self._address.path}{path} HTTP/1.1".encode(), self._lines]
        if content is not None:
            lines.append(b"Content-Type: application/json\r\nContent-Length: %d" % len(content))
        may_send = self._may_send
        for name, value in headers.items():
            may_send = may_send and is_sendable(value.encode())
            lines.append(f"{name}: {value}".encode())
        lines += [b"", content or b""]
        return b"\r\n".join(lines) if may_send else None

    async def _connect(self) -> Connection:
        try:
            with trio.fail_after(self._connect_timeout_seconds):
                return await connect(self._address)
        except FOREIGN as error:
            raise translate(error, Stage.CONNECTING) from error

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
        self._kept.close()
