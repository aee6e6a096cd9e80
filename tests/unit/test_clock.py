"""The time of the daemon goes on steadily, whatever is done to the clock of the host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.clock import STEP_SECONDS, Clock, boot_of_host, read_host
from ai_ticket_daemon.testing.clock import HostClocks
from tests.support.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HOURS = 3600.0
UNITS = ROOT / "systemd"


@pytest.fixture
def host() -> HostClocks:
    return HostClocks(elapsed=500.0)


def test_it_begins_with_the_calendar(host: HostClocks) -> None:
    clock = host.clock()
    assert (clock.now(), clock.ahead) == (1_000_000.0, 0.0)


@pytest.mark.parametrize("step", [-2 * HOURS, -0.2, 0.2, 2 * HOURS, 1.7e9])
def test_a_clock_that_is_set_does_not_move_it_and_is_told_once(
    host: HostClocks, step: float
) -> None:
    clock = host.clock()
    host.pass_by(10)
    host.calendar += step
    assert clock.now() == 1_000_010.0
    assert clock.look() == pytest.approx(step)
    host.pass_by(1)
    assert clock.look() == 0
    assert clock.now() == 1_000_011.0
    assert clock.now() + clock.ahead == pytest.approx(host.calendar)


def test_what_reading_two_clocks_costs_is_no_step(host: HostClocks) -> None:
    clock = host.clock()
    for _ in range(100):
        host.calendar += STEP_SECONDS / 2
        assert clock.look() == 0
        host.calendar -= STEP_SECONDS / 2
        assert clock.look() == 0
    assert clock.ahead == 0


def test_small_steps_are_told_when_together_they_are_one(host: HostClocks) -> None:
    clock = host.clock()
    told = []
    for _ in range(10):
        host.calendar += STEP_SECONDS * 0.4
        told.append(clock.look())
    assert sum(told) == pytest.approx(STEP_SECONDS * 4, abs=STEP_SECONDS)
    assert clock.ahead == pytest.approx(sum(told))


@pytest.mark.parametrize("step", [-HOURS, 0.0, HOURS])
def test_a_restart_of_the_daemon_counts_the_time_it_was_away(host: HostClocks, step: float) -> None:
    before = host.clock()
    before.go_on(None)
    host.pass_by(5)
    kept = before.note()
    host.pass_by(100)
    host.calendar += step  # nobody looks
    after = host.clock()
    after.go_on(kept)
    assert after.now() == 1_000_105.0
    assert after.look() == step
    assert after.now() + after.ahead == host.calendar


def test_all_daemons_at_a_store_have_the_same_time(host: HostClocks) -> None:
    first = host.clock()
    kept = first.go_on(None)
    host.calendar += HOURS
    first.look()
    second = host.clock()
    assert second.now() != first.now()
    assert second.go_on(kept) == kept
    assert second.now() == first.now()
    second.look()
    assert second.ahead == first.ahead


def test_a_start_of_the_host_counts_what_the_calendar_says(host: HostClocks) -> None:
    clock = host.clock()
    host.calendar += 2 * HOURS
    clock.look()
    host.boot, host.elapsed = "second", 20.0
    host.calendar += 600
    after = host.clock()
    after.go_on(clock.note())
    assert after.now() == 1_000_600.0
    assert after.look() == 0
    assert after.now() + after.ahead == host.calendar


def test_a_host_that_lost_its_clock_goes_on_where_it_was(host: HostClocks) -> None:
    clock = host.clock()
    kept = clock.go_on(None)
    host.boot, host.elapsed, host.calendar = "second", 20.0, 5.0
    after = host.clock()
    after.go_on(kept)
    assert after.now() == 1_000_000.0
    host.pass_by(30)
    host.calendar = 1_000_900.0  # a time server was found
    assert after.look() == pytest.approx(1_000_900.0 - 35.0)
    assert after.now() == 1_000_030.0
    assert after.now() + after.ahead == host.calendar


def test_a_steady_clock_that_began_anew_in_the_same_boot_does_not_go_back(
    host: HostClocks,
) -> None:
    clock = host.clock()
    kept = clock.go_on(None)
    host.elapsed = 1.0  # a container whose namespace has a time of its own
    after = host.clock()
    after.go_on(kept)
    assert after.now() >= 1_000_000.0


@pytest.mark.parametrize("kept", ["", "{}", "null", '{"boot": 1}'])
def test_a_note_that_cannot_be_read_is_as_none(host: HostClocks, kept: str) -> None:
    clock = host.clock()
    clock.go_on(kept)
    assert clock.now() == 1_000_000.0


def test_a_service_that_sees_no_kernel_in_proc_is_told_the_boot_by_its_unit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = boot_of_host({})
    monkeypatch.setattr("ai_ticket_daemon.clock._BOOT_ID", tmp_path / "missing")
    assert boot_of_host({"BOOT_ID": told.partition(" ")[0]}) == told
    assert boot_of_host({"BOOT_ID": "another"}) != told
    for unit in ("ai-ticket.service", "ai-ticket@.service"):
        assert "Environment=BOOT_ID=%b\n" in (UNITS / unit).read_text()


def test_the_clocks_of_this_host_can_be_read() -> None:
    assert boot_of_host({})
    assert boot_of_host({}) == boot_of_host({"BOOT_ID": "of the unit"})
    first, second = (read_host("boot") for _ in range(2))
    assert second.elapsed > first.elapsed
    assert abs(first.calendar - time.time()) < 60
    clock = Clock()
    before = clock.now()
    assert clock.now() >= before
    assert abs(before - time.time()) < 60
