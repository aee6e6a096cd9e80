"""Attacks on the service as it is shipped: TasksMax=, LimitNOFILE= and MemoryMax= in force."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.project import ROOT
from tests.support.system.service_host import PYTHON, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.system.service_host import ServiceHost

pytestmark = pytest.mark.system

CAPTURING = "log.capture_payloads = 100\n"
ODD_SERVERS = """
[[backends.server]]
name = "odd"
role = "standby"
url = "http://127.0.0.1:5003"
[[backends.server]]
name = "odder"
role = "standby"
kind = "openai"
url = "http://127.0.0.1:5004"
"""
PROGRAMS = ROOT / "tests" / "support" / "attacks"
ATTACK_SECONDS = 120
LIVE_SECONDS = 1.0
"""What is promised of /live; the time in which others had the processor is not the daemon's."""
QUIET_SECONDS = 0.25
"""What the middle one takes under an attack that gives the event loop nothing to do."""


@contextmanager
def asked_all_the_while(host: ServiceHost) -> Iterator[dict[str, Any]]:
    """Have a process in the container ask /live for the length of a block; what it saw is told."""
    seen: dict[str, Any] = {}
    command = host.box.enter(PYTHON, "/root/live_probe.py", "127.0.0.1", "5000", str(host.pid))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probe:
        try:
            yield seen
            output, _ = probe.communicate(timeout=60)
        finally:
            probe.kill()
    seen.update(json.loads(output))


@pytest.fixture
def attacked(host: ServiceHost) -> ServiceHost:
    """The host with captures on, which is when payloads are looked at, and the tools of attack."""
    for name in ("live_probe.py", "service_attacks.py"):
        shutil.copy(PROGRAMS / name, host.box.root / "root" / name)
    host.configure(whole=CAPTURING + SETTINGS + ODD_SERVERS)
    started = host.systemctl("restart", "ai-ticket.service", check=False)
    assert started.returncode == 0, [
        line["MESSAGE"] for line in host.journal("_SYSTEMD_UNIT=ai-ticket.service")[-5:]
    ]
    host.until(lambda: host.get("/ready").status == 200, "the daemon is ready")
    return host


def limits_are_as_shipped(host: ServiceHost) -> None:
    unit = (ROOT / "systemd" / "ai-ticket.service").read_text()
    shipped = dict(re.findall(r"^(TasksMax|LimitNOFILE|MemoryMax)=(\S+)$", unit, re.MULTILINE))
    assert len(shipped) == 3
    assert host.shows("TasksMax") == shipped["TasksMax"]
    assert host.shows("LimitNOFILE") == shipped["LimitNOFILE"]
    assert host.shows("MemoryMax") == str(int(shipped["MemoryMax"].removesuffix("G")) * 2**30)


@pytest.mark.parametrize(
    ("attack", "live_seconds"),
    [
        ("metrics", QUIET_SECONDS),
        ("batches", LIVE_SECONDS),
        ("waiting", LIVE_SECONDS),
        ("nested", LIVE_SECONDS),
        ("model", LIVE_SECONDS),
    ],
)
def test_the_service_stays_the_same_process_under_attack(
    attacked: ServiceHost, attack: str, live_seconds: float
) -> None:
    host = attacked
    limits_are_as_shipped(host)
    pid, restarts = host.pid, host.shows("NRestarts")
    with asked_all_the_while(host) as live:
        done = subprocess.run(
            host.box.enter(PYTHON, "/root/service_attacks.py", attack),
            capture_output=True, text=True, timeout=ATTACK_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(attack, done.stdout.strip(), live)
    assert (host.shows("ActiveState"), host.pid) == ("active", pid)
    assert host.shows("NRestarts") == restarts
    assert live["failed"] == 0, live
    assert live["median"] < live_seconds, live
    assert live["slowest_served"] < LIVE_SECONDS, live
    faults = host.journal("_SYSTEMD_UNIT=ai-ticket.service", f"_PID={pid}", "--priority=err")
    assert faults == []
    assert host.post({"content": "afterwards", "max_tokens": 4}).status == 200
