"""All that an operator can ask the running daemon for: built here, once, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.control.backend_operations import BackendOperations
from ai_ticket_daemon.control.daemon_operations import DaemonOperations
from ai_ticket_daemon.control.event_operations import EventOperations
from ai_ticket_daemon.control.reload_operations import ReloadOperations
from ai_ticket_daemon.control.status_operations import StatusOperations
from ai_ticket_daemon.control.store_operations import StoreOperations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjection
    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.control.history import PoolHistory
    from ai_ticket_daemon.control.operation import Operation
    from ai_ticket_daemon.control.orders import StandingOrders
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.reloader import Reloader
    from ai_ticket_daemon.status.daemon_status import DaemonStatus
    from ai_ticket_daemon.store.port import EventStore
    from ai_ticket_daemon.telemetry.capture import Capture
    from ai_ticket_daemon.telemetry.logs.logs import Logs


def operations(
    *,
    status: DaemonStatus,
    pool: BackendPool,
    pipeline: AsyncInferencePipeline,
    store: EventStore,
    config: Callable[[], Config],
    reloader: Reloader,
    orders: StandingOrders,
    history: PoolHistory,
    fault_injection: FaultInjection,
    capture: Capture,
    logs: Logs,
    metrics_page: Callable[[], bytes],
    clock: Clock,
    stopping: Callable[[], bool],
) -> Mapping[str, Operation]:
    """Return every operation by its name; each group has the parts that it needs."""
    groups = (
        StatusOperations(
            status=status,
            orders=orders,
            history=history,
            config=lambda: capture.in_effect(config()),
            logs=logs,
            metrics_page=metrics_page,
            clock=clock,
        ),
        EventOperations(store=store, pipeline=pipeline, history=history, clock=clock),
        BackendOperations(
            status=status,
            pool=pool,
            pipeline=pipeline,
            orders=orders,
            fault_injection=fault_injection,
            stopping=stopping,
        ),
        DaemonOperations(
            orders=orders, pipeline=pipeline, logs=logs, capture=capture, stopping=stopping
        ),
        ReloadOperations(reloader),
        StoreOperations(store, config().store.path),
    )
    return {operation.name: operation for group in groups for operation in group.operations()}
