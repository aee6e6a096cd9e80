"""The sampler: an actor that looks at the daemon regularly and sets the gauges nobody else sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable

if TYPE_CHECKING:
    from ai_ticket_daemon.status.daemon_status import DaemonStatus
    from ai_ticket_daemon.status.snapshot import QueueSnapshot, Snapshot
    from ai_ticket_daemon.telemetry.guard import Failures
    from ai_ticket_daemon.telemetry.logs.logs import Logs
    from ai_ticket_daemon.telemetry.metrics import Metrics

INTERVAL_SECONDS = 1.0


async def run(
    *,
    metrics: Metrics,
    status: DaemonStatus,
    logs: Logs,
    failures: Failures,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Set the gauges once a second; runs until cancelled. Started with the first look taken."""
    told = False
    while True:
        try:
            metrics.telemetry_log_lines_dropped.inc(logs.take_losses())
            _show(metrics, status.snapshot())
            _show_queue(metrics, (await status.look()).queue)
        except StoreUnavailable:
            pass  # The gauges stay as they were; the store itself says that it failed.
        except Exception as error:  # noqa: BLE001 - the edge: one look never costs the actor
            failures.note("look", error)
        if not told:
            task_status.started()
            told = True
        await trio.sleep(INTERVAL_SECONDS)


def _show(metrics: Metrics, snapshot: Snapshot) -> None:
    metrics.pipeline_in_flight.set(snapshot.in_flight)
    metrics.pipeline_max_concurrency.set(snapshot.max_concurrency)
    metrics.order_in_force.labels("paused").set(snapshot.paused)
    metrics.order_in_force.labels("draining").set(snapshot.draining)
    metrics.order_in_force.labels("pinned").set(snapshot.active.pinned is not None)
    for backend in snapshot.backends:
        metrics.kobold_backend_up.labels(backend.name, backend.role).set(backend.usable)
        metrics.kobold_backend_active.labels(backend.name).set(backend.active)
        metrics.kobold_backend_slots.labels(backend.name).set(backend.max_in_flight)
        for gauge, speed in (
            (metrics.kobold_backend_prompt_speed, backend.prompt_tokens_per_second),
            (metrics.kobold_backend_written_speed, backend.written_tokens_per_second),
        ):
            gauge.labels(backend.name).set(speed or 0.0)
        metrics.show_version(backend.name, backend.kind, backend.version or "unknown")
    metrics.keep_backends({backend.name: backend.role for backend in snapshot.backends})


def _show_queue(metrics: Metrics, queue: QueueSnapshot) -> None:
    for state in ("queued", "running"):
        metrics.pipeline_queue_depth.labels(state).set(queue.states[state])
    metrics.pipeline_oldest_queued.set(queue.oldest_queued_seconds or 0)
    metrics.store_difference.set(queue.difference)
