"""The line that ``systemctl status`` shows."""

from __future__ import annotations

from dataclasses import replace

from ai_ticket_daemon.status.line import line_of
from ai_ticket_daemon.status.snapshot import HealthStatus, QueueSnapshot
from ai_ticket_daemon.testing.http import backend_snapshot, healthy

HEALTHY = replace(
    healthy(),
    backends=(
        backend_snapshot("a", "primary", "busy", active=True, in_flight=1),
        backend_snapshot("b", "primary", "down", active=True),
        backend_snapshot("c", "standby", "ready"),
    ),
    queue=QueueSnapshot(states={"queued": 3, "running": 1, "succeeded": 9}),
)


def test_the_line_names_who_serves_what_waits_and_how_fast_it_goes() -> None:
    line = line_of(replace(HEALTHY, events_per_second=0.714))

    assert line == "healthy; served by a; 3 queued, 1 running; 0.71 events/s"


def test_it_says_when_nobody_serves() -> None:
    snapshot = replace(HEALTHY, status=HealthStatus.UNHEALTHY, backends=(), queue=QueueSnapshot())

    assert line_of(snapshot) == ("unhealthy; no backend is usable; 0 queued, 0 running; 0 events/s")


def test_the_first_reason_stands_in_it_and_nobody_serves_while_the_store_fails() -> None:
    reasons = ("the store cannot be written: no space left", "backend b is down: gone")
    snapshot = replace(HEALTHY, status=HealthStatus.UNHEALTHY, ready=False, reasons=reasons)

    assert line_of(snapshot) == (
        "unhealthy: the store cannot be written: no space left; 3 queued, 1 running; 0 events/s"
    )


def test_a_reason_does_not_hide_who_serves() -> None:
    snapshot = replace(HEALTHY, status=HealthStatus.DEGRADED, reasons=("paused by an operator",))

    assert line_of(snapshot).startswith("degraded: paused by an operator; served by a; ")


def test_it_says_that_the_daemon_drains_and_that_a_reload_was_refused() -> None:
    problems = ("x.conf:3: log.level: must be ...", "x.conf:4: another one")
    line = line_of(replace(HEALTHY, draining=True, reload_problems=problems))

    assert line.startswith("draining; ")
    assert line.endswith("LAST RELOAD REFUSED: x.conf:3: log.level: must be ...")
