"""The listener: accepts connections and serves the app on them.

An actor that owns the listening sockets and knows the open connections. Takes one message: the
event that tells it to stop accepting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.server.listen.acceptor import Acceptor
from ai_ticket_daemon.server.listen.admission import Admission
from ai_ticket_daemon.server.listen.connection import FIRST_REQUEST_SECONDS, ConnectionRules
from ai_ticket_daemon.server.listen.edge import Edge
from ai_ticket_daemon.server.listen.framing import MAX_HEADER_BYTES
from ai_ticket_daemon.server.listen.sockets import open_listeners
from ai_ticket_daemon.server.ports import ConnectionObserver

if TYPE_CHECKING:
    import logging
    import ssl
    from collections.abc import Callable, Sequence

    from hypercorn.typing import ASGIFramework

    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.values.rules import IpNetwork
    from ai_ticket_daemon.server.listen.sockets import BoundListener

HAND_IN_SECONDS = 2.0
"""How long a request that has begun to come in when the daemon stops may take to be handed in.

Its headers are there, its body and the store's word for it may not be; refusing it then would be an
error that a client gets for having come at the wrong moment.
"""
_ACCEPT_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 0.5
_YIELD_SECONDS = 0.05
"""How much sooner other processes at the same socket may take a client while there is no room."""


async def serve(
    app: ASGIFramework,
    http: HttpConfig,
    *,
    tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    stop_accepting: trio.Event,
    all_in: trio.Event,
    logger: logging.Logger,
    observer: ConnectionObserver | None = None,
    trusted_proxies: Callable[[], Sequence[IpNetwork]] = tuple,
    write_timeout_seconds: float = 30.0,
    exhaustion: Exhaustion | None = None,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``stop_accepting`` is set and the last connection is done.

    After that event no connection is accepted, idle ones are closed after a moment, and requests
    that run may finish; whoever cannot wait for them cancels this call.

    Args:
        app: the app. If it has ``open_exchange``, that serves requests of HTTP/1.
        http: where to listen, how long and how many.
        tls: asked for each connection over TCP what to encrypt it with; None: not at all.
        stop_accepting: set it to stop.
        all_in: set when after that no further request can come in.
        logger: told of crashes and refusals; hypercorn's own messages go there too.
        observer: told of each connection that is refused.
        trusted_proxies: returns the proxies in force now, whose connections nobody counts.
        write_timeout_seconds: how long a client may refuse to read before it counts as gone.
        exhaustion: told of what the host lacks.
        task_status: started with the addresses listened on, such as ``127.0.0.1:5000``.

    Raises:
        ListenerUnavailable: an address cannot be listened on.
    """
    exhaustion = exhaustion or Exhaustion()
    edge = Edge(logger, observer or ConnectionObserver(), exhaustion)
    listeners = await open_listeners(http.bind)
    try:
        rules = ConnectionRules(
            app=ASGIWrapper(app),
            open_exchange=getattr(app, "open_exchange", None),
            config=_hypercorn_config(logger),
            context=WorkerContext(None),
            header_timeout_seconds=http.header_timeout_seconds,
            write_timeout_seconds=write_timeout_seconds,
            edge=edge,
        )
        admission = Admission(http.max_connections, http.max_connections_per_address)
        async with trio.open_nursery() as handlers:
            acceptor = Acceptor(rules, admission, handlers, logger, trusted_proxies)
            async with trio.open_nursery() as acceptors:
                acceptors.start_soon(edge.run)
                for listener in listeners:
                    acceptors.start_soon(_accept, listener, tls, acceptor, exhaustion)
                task_status.started(tuple(listener.address for listener in listeners))
                await stop_accepting.wait()
                acceptors.cancel_scope.cancel()
            for listener in listeners:
                listener.close()
            admission.close()
            await rules.context.terminated.set()
            connections = acceptor.connections
            for connection in tuple(connections):
                connection.stop()
            with trio.move_on_after(FIRST_REQUEST_SECONDS):
                for connection in tuple(connections):
                    await connection.settled.wait()
            with trio.move_on_after(HAND_IN_SECONDS):
                for connection in tuple(connections):
                    await connection.ended.wait()
            all_in.set()
    finally:
        for listener in listeners:
            listener.close()


async def _accept(
    listener: BoundListener,
    tls: Callable[[], ssl.SSLContext | None],
    acceptor: Acceptor,
    exhaustion: Exhaustion,
) -> None:
    """Accept connections for ever; the acceptor decides what becomes of each."""
    retry_seconds = _ACCEPT_RETRY_SECONDS
    while True:
        if listener.shared is not None and acceptor.is_full:
            await trio.sleep(_YIELD_SECONDS)
        try:
            stream = await listener.accept()
        except Exception as error:
            # A client that left while it waited, or a host that has run out of something: neither
            # is a reason to stop, and only the second one needs time to get better.
            lacking = exhaustion.meets(error, listener.address)
            if lacking is None and not isinstance(error, OSError):
                raise
            if lacking is None:
                acceptor.logger.info("accept_failed: %s", error)
            retry_seconds = min(2 * retry_seconds, _LONGEST_RETRY_SECONDS)
            await trio.sleep(retry_seconds)
            continue
        retry_seconds = _ACCEPT_RETRY_SECONDS
        acceptor.receive(stream, None if listener.is_unix else tls())


def _hypercorn_config(logger: logging.Logger) -> Config:
    config = Config()
    config.errorlog = logger
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = MAX_HEADER_BYTES
    config.h2_max_header_list_size = MAX_HEADER_BYTES
    return config
