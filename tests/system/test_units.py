"""The systemd unit: systemd itself has nothing to say against it, and it fits the daemon."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.__main__ import DEFAULT_CONFIG, EXIT_CONFIG
from ai_ticket_daemon.systemd.watchdog import (
    FEEDS_PER_LIMIT,
    LONGEST_INTERVAL_SECONDS,
    STOP_EXTENSION_SECONDS,
)
from tests.support.project import ROOT
from tests.support.system.debian_packages import need_packages

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

UNITS = ROOT / "systemd"
UNIT = UNITS / "ai-ticket.service"
VERIFIED = (
    "ai-ticket.service", "ai-ticket@1.service", "ai-ticket.socket",
    "ai-ticket-backup.service", "ai-ticket-backup.timer",
)  # fmt: skip
HIGHEST_EXPOSURE = 10
"""In tenths, as systemd counts it; services that ask for nothing have 96."""


@pytest.fixture
def analyze() -> str:
    """Return the path of systemd-analyze."""
    need_packages("systemd")
    found = shutil.which("systemd-analyze")
    assert found is not None
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder of all units, whose programs exist, as systemd wants to see them."""
    program = tmp_path / "program"
    program.touch(mode=0o755)
    for unit in [*UNITS.glob("*.s*"), *UNITS.glob("*.timer")]:
        text = re.sub(r"^(Exec\w+=)/\S+", rf"\1{program}", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name.replace("@.", "@1.")).write_text(text)
    return tmp_path


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), flags=re.MULTILINE)


def test_systemd_understands_every_line(analyze: str, installed: Path) -> None:
    checked = subprocess.run(
        [analyze, "verify", "--man=no", *(installed / name for name in VERIFIED)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    # It exits 0 even for keys it does not know, so what counts is that it says nothing.
    assert checked.stdout + checked.stderr == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("name", ["ai-ticket.service", "ai-ticket@1.service"])
def test_the_sandbox_leaves_little_exposed(analyze: str, installed: Path, name: str) -> None:
    checked = subprocess.run(
        [
            analyze,
            "security",
            "--offline=true",
            f"--threshold={HIGHEST_EXPOSURE}",
            installed / name,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_systemd_waits_longer_than_the_daemon_needs_to_stop() -> None:
    """The drain itself does not count: while it lasts, the daemon asks for more time."""
    [timeout] = values("TimeoutStopSec")

    # Last answers 2 s, aborts and writes 10 s each at most, traces 2 s, and a little more.
    assert int(timeout) >= 30
    assert int(timeout) <= STOP_EXTENSION_SECONDS


def test_the_watchdog_is_slower_than_the_daemon_needs_to_feed_it() -> None:
    [limit] = values("WatchdogSec")

    assert int(limit) >= FEEDS_PER_LIMIT * LONGEST_INTERVAL_SECONDS
    assert values("Type") == ["notify"]


def test_a_configuration_that_cannot_be_used_is_not_tried_again() -> None:
    assert values("Restart") == ["always"]
    assert values("RestartPreventExitStatus") == [str(EXIT_CONFIG)]


def test_the_service_uses_the_default_file_and_a_reload_waits_for_the_result() -> None:
    [start] = values("ExecStart")

    assert shlex.split(start)[1:] == ["--config", str(DEFAULT_CONFIG)]
    [reload] = values("ExecReload")
    assert shlex.split(reload) == [shlex.split(start)[0], "--reload", "$MAINPID"]


def directives(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def test_an_instance_differs_from_the_single_service_only_where_it_says_its_number() -> None:
    single, instance = directives(UNIT), directives(UNITS / "ai-ticket@.service")

    assert set(single) - set(instance) == {
        "Description=AI ticket events in front of KoboldCPP",
        "RuntimeDirectory=ai-ticket",
    }
    own = set(instance) - set(single) - {"DefaultInstance=1"}
    assert own
    assert [line for line in own if "%i" not in line] == []


def test_every_directive_of_the_service_stands_below_its_reason() -> None:
    """A reason may be for several lines in a row, but each paragraph of [Service] has one."""
    service = UNIT.read_text().partition("[Service]\n")[2].partition("\n[Install]")[0]

    assert [part for part in service.split("\n\n") if not part.strip().startswith("#")] == []
