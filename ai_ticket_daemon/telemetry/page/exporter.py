"""The metrics page for Prometheus: an actor that looks after the thread which serves it.

It is served from a thread: it must answer just when the event loop does not, and it only reads.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import outcome
import trio

from ai_ticket_daemon.server.listen.sockets import ListenerUnavailable
from ai_ticket_daemon.telemetry.page.scrapes import Scrapes

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ai_ticket_daemon.config.values.addresses import TcpBind
    from ai_ticket_daemon.host.exhaustion import Exhaustion

BACKLOG = 128
STOP_SECONDS = 1.0
"""How long the thread may take to stop; it is at work on one page at the most."""


async def run(
    *,
    registry: CollectorRegistry,
    bind: TcpBind,
    exhaustion: Exhaustion,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the metrics page until cancelled; started with the port it listens on.

    Raises:
        ListenerUnavailable: the address cannot be bound.
    """
    try:
        listener = await _listen(bind)
    except OSError as error:
        raise ListenerUnavailable(
            f"metrics.bind: cannot listen on {bind}: {error.strerror}"
        ) from error
    try:
        port: int = listener.getsockname()[1]
        scrapes = Scrapes(listener, registry, exhaustion)
        ended, came_of_it = trio.Event(), list[outcome.Outcome[None]]()
        token = trio.lowlevel.current_trio_token()

        def serve() -> None:
            came_of_it.append(outcome.capture(scrapes.run))
            try:
                token.run_sync_soon(ended.set)
            except trio.RunFinishedError:
                return

        threading.Thread(target=serve, name="metrics", daemon=True).start()
    except BaseException:
        listener.close()
        raise
    try:
        task_status.started(port)
        await ended.wait()
        came_of_it[0].unwrap()
    finally:
        if not ended.is_set():
            scrapes.stop()
            with trio.move_on_after(STOP_SECONDS, shield=True):
                await ended.wait()


async def _listen(bind: TcpBind) -> socket.socket:
    found = await trio.socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
