"""Requests that come by way of ASGI: those of HTTP/2."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import trio

from ai_ticket_daemon.server.listen.connection_state import INVITE, PLACE, ask
from ai_ticket_daemon.server.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

    from ai_ticket_daemon.server.http_exchange import HttpExchange
    from ai_ticket_daemon.server.request import ClientSide


async def serve(
    open_exchange: Callable[[Request, ClientSide], HttpExchange],
    scope: HTTPScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    *,
    write_timeout_seconds: float,
) -> None:
    """Serve one request; returns early if the client leaves."""
    async with trio.open_nursery() as nursery:
        client = _AsgiClient(scope, send, write_timeout_seconds, nursery.cancel_scope)
        exchange = open_exchange(_request_of(scope), client)
        _take_what_is_here(exchange, receive, nursery.cancel_scope)
        nursery.start_soon(_listen, exchange, receive, nursery.cancel_scope)
        # A turn later: what hypercorn tells of the end of a body comes behind the body.
        nursery.start_soon(_run, exchange, nursery.cancel_scope)


async def _run(exchange: HttpExchange, serving: trio.CancelScope) -> None:
    await exchange.run()
    serving.cancel()


def _take_what_is_here(
    exchange: HttpExchange, receive: ASGIReceiveCallable, serving: trio.CancelScope
) -> None:
    """Take in what hypercorn has already: as a rule, the whole body."""
    channel = getattr(receive, "__self__", None)
    if isinstance(channel, trio.MemoryReceiveChannel):
        with suppress(trio.WouldBlock):
            while (message := channel.receive_nowait())["type"] == "http.request":
                exchange.take(message["body"], is_last=not message["more_body"])
            serving.cancel()


async def _listen(
    exchange: HttpExchange, receive: ASGIReceiveCallable, serving: trio.CancelScope
) -> None:
    """Take in the body, then wait; when the client leaves, so does the handler."""
    while (message := await receive())["type"] == "http.request":
        exchange.take(message["body"], is_last=not message["more_body"])
    serving.cancel()


class _AsgiClient:
    """See :class:`.ClientSide`."""

    def __init__(
        self,
        scope: HTTPScope,
        send: ASGISendCallable,
        timeout_seconds: float,
        serving: trio.CancelScope,
    ) -> None:
        self._scope = cast("Mapping[str, Any]", scope)
        self._send = send
        self._timeout_seconds = timeout_seconds
        self._serving = serving
        self._head: dict[str, Any] | None = None

    async def place(self) -> None:
        await ask(self._scope, PLACE)

    async def invite(self) -> None:
        await ask(self._scope, INVITE)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._head = {"type": "http.response.start", "status": status, "headers": raw}

    async def send(self, data: bytes, *, is_last: bool) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            await self._send_in_time(head)
        # From inside the last call hypercorn reports the end of the request, upon which we are
        # cancelled; the shield lets it finish what it does for the connection.
        message = {"type": "http.response.body", "body": data, "more_body": not is_last}
        await self._send_in_time(message, shield=is_last)

    async def _send_in_time(self, message: dict[str, Any], *, shield: bool = False) -> None:
        with trio.move_on_after(self._timeout_seconds, shield=shield) as scope:
            await self._send(cast("Any", message))
        if scope.cancelled_caught:
            # Whoever does not read is as good as gone; end as if the connection were lost.
            self._serving.cancel()
            await trio.lowlevel.checkpoint()


def _request_of(scope: HTTPScope) -> Request:
    headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
    length = next((value for name, value in headers if name == b"content-length"), b"")
    client = scope["client"]
    return Request(
        method=scope["method"],
        target=scope["raw_path"],
        query=scope["query_string"],
        version=scope["http_version"],
        headers=headers,
        peer=None if client is None else str(client[0]),
        length=int(length) if length.isdigit() else None,
    )
