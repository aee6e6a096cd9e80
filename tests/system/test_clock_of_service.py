"""The clock of the installed service tells a restart of its own from a start of the host."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.system.container import container
from tests.support.system.service_host import PYTHON, ServiceHost, submit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.system.container import Container

pytestmark = pytest.mark.system

READ = """\
import sqlite3
store = sqlite3.connect("file:/var/lib/ai-ticket/events.db?mode=ro", uri=True)
print(store.execute("SELECT value FROM note WHERE key = 'timeline'").fetchone()[0])
"""
INSTALLED = (
    "opt/ai-ticket", "var/lib/ai-ticket", "etc/ai-ticket", "etc/systemd/system", "etc/passwd",
    "etc/group", "usr/lib/sysusers.d/ai-ticket.conf", "usr/lib/tmpfiles.d/ai-ticket.conf",
)  # fmt: skip


def timeline(host: ServiceHost) -> Any:
    """Return what the daemon noted of its time."""
    return json.loads(host.box.run(PYTHON, "-c", READ).stdout)


def boot_id(host: ServiceHost) -> str:
    return host.box.shell("tr -d -- -\\\\n </proc/sys/kernel/random/boot_id")


def move(old: Container, new: Container) -> None:
    """Put the service and its data into another container, which starts where the old one ended."""
    with subprocess.Popen(
        ["tar", "-C", old.root, "-cf", "-", *INSTALLED], stdout=subprocess.PIPE
    ) as packed:
        subprocess.run(["tar", "-C", new.root, "-xpf", "-"], stdin=packed.stdout, check=True)
    assert packed.returncode == 0
    new.run("systemctl", "daemon-reload")
    new.run("systemd-tmpfiles", "--create", "ai-ticket.conf", check=False)


def test_a_restart_goes_on_and_a_start_of_the_host_is_noticed(
    host: ServiceHost, tmp_path: Path
) -> None:
    first = boot_id(host)
    host.systemctl("restart", "ai-ticket.service")
    [event_id] = submit(host, 1)
    before = timeline(host)
    assert before["boot"].split()[0] == first, "the unit hides boot_id, and names it"

    host.systemctl("restart", "ai-ticket.service")
    after = timeline(host)
    assert (after["boot"], after["offset"]) == (before["boot"], before["offset"])

    host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
    with container(tmp_path, "again") as box:
        started = ServiceHost(box)
        move(host.box, box)
        started.systemctl("start", "ai-ticket.socket", "ai-ticket.service")
        started.until(lambda: started.get("/live").status == 200, "it serves")
        assert boot_id(started) != first
        again = timeline(started)
        assert again["boot"].split()[0] == boot_id(started)
        assert again["seen_at"] >= after["seen_at"]
        assert again["ahead"] == pytest.approx(after["ahead"], abs=1)
        assert started.get(f"/event/{event_id}").status == 200
        # Same boot from now on: a restart goes on.
        started.systemctl("restart", "ai-ticket.service")
        assert timeline(started)["offset"] == again["offset"]
