"""The sampler: an actor that looks at the daemon regularly and sets the gauges nobody else sets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.pool.selection import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.config.pipeline import PipelineConfig
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.status.health import DaemonHealth
    from ai_ticket_daemon.store.port import EventStore
    from ai_ticket_daemon.telemetry.guard import Failures
    from ai_ticket_daemon.telemetry.logs.logs import Logs
    from ai_ticket_daemon.telemetry.metrics import Metrics

INTERVAL_SECONDS = 1.0


async def run(
    *,
    metrics: Metrics,
    store: EventStore,
    pool: BackendPool,
    pipeline: AsyncInferencePipeline,
    health: DaemonHealth,
    logs: Logs,
    now: Callable[[], float],
    settings: Callable[[], PipelineConfig],
    failures: Failures,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Set the gauges once a second; runs until cancelled. Started with the first look taken."""
    look = partial(_look, metrics, store, pool, pipeline, health, logs, now, settings)
    told = False
    while True:
        try:
            await look()
        except Exception as error:  # noqa: BLE001 - the edge: one look never costs the actor
            failures.note("look", error)
        if not told:
            task_status.started()
            told = True
        await trio.sleep(INTERVAL_SECONDS)


async def _look(
    metrics: Metrics,
    store: EventStore,
    pool: BackendPool,
    pipeline: AsyncInferencePipeline,
    health: DaemonHealth,
    logs: Logs,
    now: Callable[[], float],
    settings: Callable[[], PipelineConfig],
) -> None:
    metrics.telemetry_log_lines_dropped.inc(logs.take_losses())
    metrics.pipeline_in_flight.set(pipeline.in_flight)
    metrics.pipeline_max_concurrency.set(settings().max_concurrency)
    metrics.order_in_force.labels("paused").set(pipeline.paused)
    metrics.order_in_force.labels("draining").set(pipeline.draining)
    metrics.order_in_force.labels("pinned").set(pool.active.pinned is not None)
    active = serving(pool, pool.active)
    for backend in pool:
        role, slots = backend.config.role.value, backend.config.max_in_flight
        metrics.kobold_backend_up.labels(backend.name, role).set(backend.health.usable)
        metrics.kobold_backend_active.labels(backend.name).set(backend in active)
        metrics.kobold_backend_slots.labels(backend.name).set(slots)
    metrics.keep_backends({backend.name: backend.config.role.value for backend in pool})
    try:
        counts = await store.counts()
        oldest = await store.oldest_queued_at()
    except StoreUnavailable:
        return  # The gauges stay as they were; the store itself says that it failed.
    health.queue = {state.value: count for state, count in counts.states.items()}
    for state in (EventState.QUEUED, EventState.RUNNING):
        metrics.pipeline_queue_depth.labels(state.value).set(counts.states[state])
    metrics.pipeline_oldest_queued.set(0 if oldest is None else now() - oldest)
    metrics.store_difference.set(counts.difference)
