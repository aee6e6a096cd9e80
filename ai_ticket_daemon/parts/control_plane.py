"""What an operator reaches: standing orders, operations, and the sockets they come in by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from ai_ticket_daemon import __version__
from ai_ticket_daemon.control import server
from ai_ticket_daemon.control.backend_operations import BackendOperations
from ai_ticket_daemon.control.control_app import ControlApp
from ai_ticket_daemon.control.daemon_operations import DaemonOperations
from ai_ticket_daemon.control.event_operations import EventOperations
from ai_ticket_daemon.control.orders import StandingOrders, this_process
from ai_ticket_daemon.control.reload_operations import ReloadOperations
from ai_ticket_daemon.control.status_operations import StatusOperations
from ai_ticket_daemon.control.store_operations import StoreOperations
from ai_ticket_daemon.control.view_app import ViewApp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from hypercorn.typing import ASGIFramework
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.control.operation import Operation
    from ai_ticket_daemon.parts.front_end import FrontEnd
    from ai_ticket_daemon.parts.servers import Servers
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.reloader import LiveConfig, Reloader
    from ai_ticket_daemon.status.daemon_status import DaemonStatus
    from ai_ticket_daemon.store.port import EventStore
    from ai_ticket_daemon.telemetry.instrumentation import Instrumentation
    from ai_ticket_daemon.telemetry.logs.logs import Logs


class ControlPlane:
    """How an operator looks at the daemon and acts on it.

    Args:
        live: the configuration in force.
        store: keeps the orders that hold for all daemons, and the events.
        servers: what an order is about.
        pipeline: holds and drains.
        look: looks on.
        clock: the time of orders.
        logs: where log lines go.
        stopping: says whether the daemon was told to stop.
    """

    def __init__(
        self,
        *,
        live: LiveConfig,
        store: EventStore,
        servers: Servers,
        pipeline: AsyncInferencePipeline,
        look: Instrumentation,
        clock: Clock,
        logs: Logs,
        stopping: Callable[[], bool],
    ) -> None:
        self._live = live
        self._store = store
        self._servers = servers
        self._pipeline = pipeline
        self._look = look
        self._clock = clock
        self._logs = logs
        self._stopping = stopping
        socket = server.socket_path(live.current.control.socket, os.environ)
        self.orders = StandingOrders(
            store=store,
            pool=servers.pool,
            pipeline=pipeline,
            history=servers.history,
            me=this_process(None if socket is None else str(socket), __version__),
            stopping=stopping,
            log=logs.logger(actor="orders"),
            clock=clock,
        )

    def operations(self, *, status: DaemonStatus, reloader: Reloader) -> Mapping[str, Operation]:
        """Return all that an operator can ask the daemon for, by its name.

        Each group of operations has the parts that it needs.
        """
        servers, capture = self._servers, self._look.capture
        groups = (
            StatusOperations(
                status=status,
                orders=self.orders,
                history=servers.history,
                config=lambda: capture.in_effect(self._live.current),
                logs=self._logs,
                metrics_page=lambda: generate_latest(self._look.metrics.registry),
                clock=self._clock,
            ),
            EventOperations(
                store=self._store,
                pipeline=self._pipeline,
                history=servers.history,
                clock=self._clock,
            ),
            BackendOperations(
                status=status,
                pool=servers.pool,
                pipeline=self._pipeline,
                orders=self.orders,
                fault_injection=servers.fault_injection,
                stopping=self._stopping,
            ),
            DaemonOperations(
                orders=self.orders,
                pipeline=self._pipeline,
                logs=self._logs,
                capture=capture,
                stopping=self._stopping,
            ),
            ReloadOperations(reloader),
            StoreOperations(self._store, self._live.current.store.path),
        )
        return {operation.name: operation for group in groups for operation in group.operations()}

    async def start(
        self,
        start: Callable[..., Awaitable[Any]],
        table: Mapping[str, Operation],
        front_end: FrontEnd,
    ) -> None:
        """Let the operator in; also while the daemon drains."""
        log = self._logs.logger(actor="control")
        await start(
            "control",
            server.run,
            apps=self._apps(table, front_end, log),
            log=log,
            logger=self._logs.library_logger("control_server", actor="control"),
            exhaustion=self._look.exhaustion,
        )

    def _apps(
        self,
        table: Mapping[str, Operation],
        front_end: FrontEnd,
        log: FilteringBoundLogger,
    ) -> dict[Path, ASGIFramework]:
        """Return what is served to whoever may act, and to whoever may look, by its socket."""
        settings = self._live.current.control
        acting = server.socket_path(settings.socket, os.environ)
        looking = server.view_path(settings.view_socket, os.environ)
        public, exhaustion = front_end.local_app, self._look.exhaustion
        apps: dict[Path, ASGIFramework] = {}
        if acting is not None:
            apps[acting] = ControlApp(table, public=public, log=log, exhaustion=exhaustion)
        if looking is not None:
            apps[looking] = ViewApp(
                table, public=public, log=log, exhaustion=exhaustion, acting=acting
            )
        return apps
