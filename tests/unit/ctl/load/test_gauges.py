from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ai_ticket_daemon.ctl.load.gauges import Gauges, Look, from_metrics, from_status
from ai_ticket_daemon.telemetry.metrics import Metrics


def test_page_and_report_tell_the_same() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.pipeline_queue_depth.labels("queued").set(7)
    metrics.pipeline_queue_depth.labels("running").set(2)
    metrics.pipeline_oldest_queued.set(1.5)
    metrics.pipeline_in_flight.set(2)
    metrics.pipeline_max_concurrency.set(8)
    for name, role, active, up, slots in (
        ("a", "primary", 1, 1, 2),
        ("b", "primary", 1, 0, 4),
        ("c", "standby", 0, 1, 1),
    ):
        metrics.kobold_backend_active.labels(name).set(active)
        metrics.kobold_backend_up.labels(name, role).set(up)
        metrics.kobold_backend_slots.labels(name).set(slots)
    report = {
        "queue": {"queued": 7, "running": 2},
        "oldest_queued_seconds": 1.5,
        "in_flight": 2,
        "max_concurrency": 8,
        "capacity": 2,
    }
    page = generate_latest(metrics.registry).decode()
    assert from_metrics(page) == from_status(report) == Look(7, 1.5, 2, 2)


def test_a_page_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="ai_ticket_pipeline_queue_depth"):
        from_metrics("# TYPE other gauge\nother 1\n")


def test_many_looks_come_to_averages_and_extremes() -> None:
    gauges = Gauges()
    assert gauges.summary() is None
    for look in (Look(1, 0.5, 1, 2), Look(9, 4.0, 2, 2), Look(3, 2.0, 0, 0)):
        gauges.take(look)
    assert gauges.summary() == {
        "slots": 0,
        "slot_use": 0.5,
        "queued_at_start": 1,
        "queued_at_most": 9,
        "queued_at_end": 3,
        "oldest_queued_seconds": 4.0,
    }
