from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.server.ports import BackendReport, HealthReport, HealthStatus
from ai_ticket_daemon.status.line import Rate, describe

HEALTHY = HealthReport(
    status=HealthStatus.HEALTHY,
    ready=True,
    draining=False,
    version="1",
    uptime_seconds=1,
    reasons=(),
    backends=(
        BackendReport("a", "primary", "busy", active=True, in_flight=1),
        BackendReport("b", "primary", "down", active=True, in_flight=0),
        BackendReport("c", "standby", "ready", active=False, in_flight=0),
    ),
    queue={"queued": 3, "running": 1, "succeeded": 9},
)


def test_the_line_names_who_serves_what_waits_and_how_fast_it_goes() -> None:
    line = describe(HEALTHY, 0.714, "")

    assert line == "healthy; served by a; 3 queued, 1 running; 0.71 events/s"


def test_it_says_when_nobody_serves() -> None:
    report = replace(HEALTHY, status=HealthStatus.UNHEALTHY, backends=(), queue={})

    assert describe(report, 0, "") == (
        "unhealthy; no backend is usable; 0 queued, 0 running; 0 events/s"
    )


def test_the_first_reason_stands_in_it_and_nobody_serves_while_the_store_fails() -> None:
    reasons = ("the store cannot be written: no space left", "backend b is down: gone")
    report = replace(HEALTHY, status=HealthStatus.UNHEALTHY, ready=False, reasons=reasons)

    assert describe(report, 0, "") == (
        "unhealthy: the store cannot be written: no space left; 3 queued, 1 running; 0 events/s"
    )


def test_a_reason_does_not_hide_who_serves() -> None:
    report = replace(HEALTHY, status=HealthStatus.DEGRADED, reasons=("paused by an operator",))

    assert describe(report, 0, "").startswith("degraded: paused by an operator; served by a; ")


def test_it_says_that_the_daemon_drains_and_that_a_reload_was_refused() -> None:
    line = describe(replace(HEALTHY, draining=True), 0, "x.conf:3: log.level: must be ...")

    assert line.startswith("draining; ")
    assert line.endswith("LAST RELOAD REFUSED: x.conf:3: log.level: must be ...")


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = Rate(window_seconds=60)

    assert rate.per_second(100, now=0) == 0
    assert rate.per_second(130, now=30) == pytest.approx(1)
    assert rate.per_second(190, now=60) == pytest.approx(1.5)
    assert rate.per_second(190, now=90) == pytest.approx(1)
    assert rate.per_second(190, now=120) == 0
