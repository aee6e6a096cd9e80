"""The metrics page for Prometheus, on a port of its own.

Served from a thread: it must answer just when the event loop does not, and it only reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from prometheus_client import start_http_server

from ai_ticket_daemon.server.sockets import ListenerUnavailable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ai_ticket_daemon.config.addresses import TcpBind


async def run(
    *,
    registry: CollectorRegistry,
    bind: TcpBind,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the metrics page until cancelled; started with the port it listens on.

    Raises:
        ListenerUnavailable: the address cannot be bound.
    """
    try:
        server, thread = start_http_server(bind.port, bind.host, registry)
    except OSError as error:
        raise ListenerUnavailable(
            f"metrics.bind: cannot listen on {bind}: {error.strerror}"
        ) from error
    try:
        task_status.started(server.server_port)
        await trio.sleep_forever()
    finally:
        # shutdown() waits up to half a second for its thread: too long for the event loop.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(server.shutdown)
        server.server_close()
        thread.join()
