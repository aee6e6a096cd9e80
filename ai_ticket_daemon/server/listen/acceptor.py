"""What becomes of an accepted connection: it is served, waits for a place, or is told why not."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import RequestRefused
from ai_ticket_daemon.server.answers import error_headers, error_object, to_json
from ai_ticket_daemon.server.client_address import counted_address
from ai_ticket_daemon.server.headers import JSON_TYPE
from ai_ticket_daemon.server.listen.admission import Standing, is_local, refusal
from ai_ticket_daemon.server.listen.connection import LINGER_SECONDS, Connection
from ai_ticket_daemon.server.listen.sockets import peer_address, watch_peer
from ai_ticket_daemon.server.ports import ConnectionRefusal

if TYPE_CHECKING:
    import logging
    import ssl
    from collections.abc import Callable, Sequence

    from ai_ticket_daemon.config.values.rules import IpNetwork
    from ai_ticket_daemon.server.listen.admission import Admission, Guest
    from ai_ticket_daemon.server.listen.connection import ConnectionRules, Stream

MAX_TURNED_AWAY = 64
"""How many refused connections may be told why at a time; more are closed without a word."""

_DROPPED_BYTES = 65_536


class Acceptor:
    """Takes in accepted connections. Owns those that are open.

    Args:
        rules: what they have in common.
        admission: decides who gets in.
        handlers: runs them.
        logger: told of what goes wrong while they are accepted.
        trusted_proxies: returns those in force now.
    """

    def __init__(
        self,
        rules: ConnectionRules,
        admission: Admission,
        handlers: trio.Nursery,
        logger: logging.Logger,
        trusted_proxies: Callable[[], Sequence[IpNetwork]],
    ) -> None:
        self.logger = logger
        self.connections: set[Connection] = set()
        self._rules = rules
        self._admission = admission
        self._handlers = handlers
        self._trusted_proxies = trusted_proxies
        self._turned_away = 0

    @property
    def is_full(self) -> bool:
        """Whether a connection that came now would have to wait."""
        return self._admission.is_full

    def receive(self, stream: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        """Let a connection in, or have it told why not; returns at once."""
        with suppress(OSError):  # it has gone already, which the connection will notice
            watch_peer(stream.socket, self._rules.write_timeout_seconds)
        peer = peer_address(stream.socket)
        admitted = self._admission.admit(
            counted_address(peer, self._trusted_proxies()), local=is_local(peer)
        )
        if not isinstance(admitted, ConnectionRefusal):
            secured = stream if tls is None else _secured(stream, tls)
            self._handlers.start_soon(self._serve, secured, admitted)
            return
        self._rules.edge.refused(admitted)
        if tls is None and self._turned_away < MAX_TURNED_AWAY:
            self._turned_away += 1
            self._handlers.start_soon(self._turn_away, stream, refusal(admitted))
        else:
            stream.socket.close()

    async def _serve(self, stream: Stream, guest: Guest) -> None:
        try:
            if guest.standing is Standing.WAITING:
                await self._admission.place(guest)
            connection = Connection(self._rules, stream, partial(self._admission.place, guest))
            guest.line = connection
            self.connections.add(connection)
            try:
                await connection.run()
            finally:
                self.connections.discard(connection)
                guest.line = None
        except RequestRefused:
            pass  # it waited, and the daemon stops
        finally:
            self._admission.leave(guest)
            await trio.aclose_forcefully(stream)

    async def _turn_away(self, stream: trio.SocketStream, error: RequestRefused) -> None:
        """Answer whatever is going to be asked, and give the client time to read that."""
        try:
            with trio.move_on_after(LINGER_SECONDS), suppress(trio.BrokenResourceError):
                await stream.send_all(_answer(error))
                await stream.send_eof()
                while await stream.receive_some(_DROPPED_BYTES):
                    pass
        finally:
            self._turned_away -= 1
            await trio.aclose_forcefully(stream)


def _secured(stream: trio.SocketStream, context: ssl.SSLContext) -> Stream:
    return trio.SSLStream(stream, context, server_side=True, https_compatible=True)


def _answer(error: RequestRefused) -> bytes:
    status = error.http_status
    body = to_json(error_object(error, event_id=None, trace_id=None))
    headers = {
        "content-type": JSON_TYPE,
        "content-length": str(len(body)),
        **error_headers(error, status),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {status} ", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
