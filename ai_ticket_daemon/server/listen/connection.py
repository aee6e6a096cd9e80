"""One client connection: an actor between a socket and hypercorn's protocols.

It owns the socket. Whoever reads decides when the connection is over: at end of file, after a
failed or too slow write, when nothing has been asked for too long. Then all requests on it are told
that their client has gone.
"""

from __future__ import annotations

import math
import socket as stdlib_socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from ai_ticket_daemon.backends.transport.tcp import TcpStream
from ai_ticket_daemon.server.listen.connection_state import PLACE
from ai_ticket_daemon.server.listen.protocols import Protocol
from ai_ticket_daemon.server.listen.sockets import peer_of
from ai_ticket_daemon.server.listen.tasks import RequestTasks
from ai_ticket_daemon.server.listen.tls import answered_in_clear
from ai_ticket_daemon.server.ports import ConnectionRefusal
from ai_ticket_daemon.server.write_lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper

    from ai_ticket_daemon.server.listen.edge import Edge
    from ai_ticket_daemon.server.listen.http1 import OpenExchange

MAX_RECEIVE_BYTES = 32_768
"""How much is read at a time."""

LINGER_SECONDS = 2.0
"""How long what a client still sends is read and thrown away after the last response.

Closing a socket with unread bytes makes the kernel reset it, and the client lose the answer.
"""

FIRST_REQUEST_SECONDS = 2.0
"""How long the first request of a connection may still come in once the daemon stops.

A client that has just been accepted does not know of the stop; closing its connection would cross
with its request, and be an error that nobody made.
"""
LAST_REQUEST_SECONDS = 0.5
"""The same for the next request of a connection that has brought some.

Less, since such connections lie idle for long, and their clients have to expect their end.
"""

_TELL_SECONDS = 1.0
"""How long the requests of a connection may take to learn that it is over."""

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRules:
    """What all connections of a server have in common."""

    app: AppWrapper
    open_exchange: OpenExchange | None
    """Serves requests of HTTP/1 without ASGI; None: ``app`` serves all."""
    config: Config
    context: WorkerContext
    header_timeout_seconds: float
    write_timeout_seconds: float
    edge: Edge


class Connection:
    """One client connection.

    Args:
        rules: what it has in common with all others.
        stream: its socket.
        place: returns once it may serve more than probes; raises ``RequestRefused`` if never.
    """

    def __init__(
        self, rules: ConnectionRules, stream: Stream, place: Callable[[], Awaitable[None]]
    ) -> None:
        self._rules = rules
        self._place = place
        self._socket: trio.socket.SocketType | stdlib_socket.socket
        self._stream: trio.SSLStream[trio.SocketStream] | TcpStream
        if isinstance(stream, trio.SSLStream):
            self._socket, self._stream = stream.transport_stream.socket, stream
        else:
            self._socket = _taken_from(stream)
            self._stream = TcpStream(self._socket)
        self._send_lock = WriteLock()
        self._waiting = trio.CancelScope()
        self._deadline = math.inf
        self._idle = True
        self._closing = False
        self._over = False
        self._resume = False
        self._served = False
        self._stopping = False
        self.idle_since: float | None = trio.current_time()
        """Since when nothing has been asked; None while something is."""
        self.settled = trio.Event()
        """Set once the connection was told to stop and brings no further request."""
        self.ended = trio.Event()

    async def run(self) -> None:
        """Serve the connection until it is over; never raises but when cancelled."""
        try:
            await self._serve()
        except OSError:
            pass  # it broke while it was set up; nobody is left to tell
        except Exception as error:  # noqa: BLE001 - the edge of an actor: it harms no other
            self._rules.edge.failed(error)
        finally:
            self.settled.set()
            self.ended.set()
            await trio.aclose_forcefully(self._stream)

    def stop(self) -> None:
        """Close the connection as soon as nothing runs on it, nor comes within a moment."""
        self._stopping = True
        if self._idle:
            self._wait(LAST_REQUEST_SECONDS if self._served else FIRST_REQUEST_SECONDS)
        else:
            self.settled.set()

    def give_way(self) -> None:
        """End the connection at once: others need its place, and nothing was asked on it."""
        self.idle_since = None
        self._end()

    async def _serve(self) -> None:
        rules = self._rules
        use_h2 = False
        if isinstance(self._stream, trio.SSLStream):
            self._wait(rules.header_timeout_seconds)
            with trio.CancelScope(deadline=self._deadline) as self._waiting:
                try:
                    if await answered_in_clear(self._stream.transport_stream):
                        return
                    await self._stream.do_handshake()
                except trio.BrokenResourceError:
                    return
            if self._waiting.cancel_called:
                return
            use_h2 = self._stream.selected_alpn_protocol() == "h2"
        family = self._socket.family
        client = parse_socket_addr(family, self._socket.getpeername())
        server = parse_socket_addr(family, self._socket.getsockname())
        self._set_idle(idle=True)
        async with RequestTasks(rules.edge.failed) as task_group:
            # The connection does not keep it, since it keeps the connection: what is kept in a
            # circle is freed by a collection, and not before.
            protocol = Protocol(
                (
                    rules.app,
                    rules.config,
                    rules.context,
                    task_group,
                    ConnectionState({**peer_of(self._socket), PLACE: self._place}),
                    isinstance(self._stream, trio.SSLStream),
                    client,
                    server,
                    self._on_event,
                ),
                use_h2=use_h2,
                open_exchange=rules.open_exchange,
                write=self._write,
                on_resume=self._on_resume,
                on_malformed=partial(rules.edge.refused, ConnectionRefusal.MALFORMED),
            )
            try:
                await protocol.initiate()
                await self._read(protocol)
            finally:
                # Shielded writes that still wait for the client fail at once, so that neither
                # their requests nor the end of the daemon have to wait for them.
                with trio.move_on_after(_TELL_SECONDS, shield=True):
                    await protocol.handle(Closed())
                await trio.aclose_forcefully(self._stream)

    async def _read(self, protocol: Protocol) -> None:
        while not self._over:
            if self._resume:
                self._resume = False
                await protocol.resume()
                continue
            data = None
            room_bytes = protocol.room_bytes
            if room_bytes == 0:
                # That it hangs up would lie behind what is not read: it is given this long.
                self._wait(self._rules.write_timeout_seconds)
            with trio.CancelScope(deadline=self._deadline) as self._waiting:
                if room_bytes == 0:
                    await trio.sleep_forever()
                try:
                    data = await self._stream.receive_some(
                        MAX_RECEIVE_BYTES if room_bytes is None else room_bytes
                    )
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
            if data is None:
                if trio.current_time() >= self._deadline:
                    if not self._closing:
                        await protocol.headers_timed_out()
                    return
            elif not data:
                return
            elif not self._closing:
                await protocol.handle(RawData(data=bytes(data)))

    async def _on_event(self, event: Event) -> None:
        # All but writing happens without a checkpoint: hypercorn calls this from tasks that are
        # being cancelled, and half of it done would leave the connection without a timeout.
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Updated):
            self._set_idle(idle=event.idle)
        elif isinstance(event, Closed):
            self._begin_close()

    async def _write(self, data: bytes) -> bool:
        """Send bytes; return whether the client is still there, and takes what it is sent."""
        stream = self._stream
        if isinstance(stream, TcpStream) and not self._send_lock.is_held:
            # As a rule there is room, and nothing to wait for.
            try:
                sent_bytes = stream.send_now(data)
            except OSError:
                self._end()
                return False
            if sent_bytes == len(data):
                return not self._over
            data = data[sent_bytes:]
        await self._write_in_time(data)
        return not self._over

    async def _write_in_time(self, data: bytes) -> None:
        async with self._send_lock:
            # Shielded, because a write that stops half way ruins the connection for the others
            # on it; bounded, because a client may never read.
            with trio.move_on_after(self._rules.write_timeout_seconds, shield=True) as scope:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._end()
            if scope.cancelled_caught:
                self._end()

    def _set_idle(self, *, idle: bool) -> None:
        if self._closing:
            return
        self._idle = idle
        self.idle_since = trio.current_time() if idle else None
        if not idle:
            self._served = True
            self._wait(math.inf)
            if self._stopping:
                self.settled.set()
        elif not self._stopping:
            self._wait(self._rules.header_timeout_seconds)
        elif self._served:
            self._begin_close()
        else:
            self._wait(FIRST_REQUEST_SECONDS)

    def _wait(self, seconds: float) -> None:
        self._deadline = trio.current_time() + seconds
        self._waiting.deadline = self._deadline

    def _begin_close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self.idle_since = trio.current_time()
        self.settled.set()
        self._wait(LINGER_SECONDS)
        try:
            self._socket.shutdown(stdlib_socket.SHUT_WR)
        except OSError:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._waiting.cancel()

    def _on_resume(self) -> None:
        self._resume = True
        self._waiting.cancel()


def _taken_from(stream: trio.SocketStream) -> stdlib_socket.socket:
    """Return the socket of ``stream``, which has none any more."""
    taken = stdlib_socket.socket(fileno=stream.socket.detach())
    taken.setblocking(False)
    return taken
