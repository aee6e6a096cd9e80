"""No request and no event is lost: restarts, an upgrade, a kill, a full disk, a stalled journal."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.system.completion import completes, serves_zsh
from tests.support.system.service_host import (
    CHECKOUT,
    CONF,
    PYTHON,
    SETTINGS,
    WHEELHOUSE,
    states,
    submit,
)

if TYPE_CHECKING:
    from tests.support.system.service_host import Answer, ServiceHost

pytestmark = pytest.mark.system

CLIENTS = 8
RESTARTS = 10
EVENTS = 24
BASH = "/usr/local/share/bash-completion/completions/ai-ticketctl"
ZSH = "/usr/local/share/zsh/site-functions/_ai-ticketctl"
COPIES = "/var/backups/ai-ticket"
EVENT: dict[str, Any] = {"content": "a ticket", "max_tokens": 4}


def test_ten_restarts_fail_no_request(host: ServiceHost) -> None:
    pids = {host.pid}
    with host.load(CLIENTS) as load:
        for _ in range(RESTARTS):
            host.systemctl("reset-failed", "ai-ticket.service")  # ten would be too many a minute
            host.systemctl("restart", "ai-ticket.service")
            pids.add(host.pid)

    assert len(pids) == RESTARTS + 1
    assert load.seen["failures"] == []
    assert load.seen["completions"] > RESTARTS * CLIENTS


def test_an_upgrade_whose_program_refuses_the_conf_file_changes_nothing(host: ServiceHost) -> None:
    pid, program = host.pid, host.box.shell("readlink /opt/ai-ticket/venv")
    host.configure("pipeline.max_concurrency = 0\n")

    refused = host.box.run(f"{CHECKOUT}/ops/install.sh", "--wheelhouse", WHEELHOUSE, check=False)

    assert refused.returncode == 1
    assert f"{CONF}:1: pipeline.max_concurrency" in refused.stderr
    assert host.pid == pid
    assert host.box.shell("readlink /opt/ai-ticket/venv") == program
    assert host.post(EVENT).status == 200


def test_removing_leaves_data_and_settings_and_says_where(host: ServiceHost) -> None:
    assert host.box.run("ai-ticket-daemon", "--version").stdout.startswith("ai-ticket-daemon 0.")
    assert completes(host.box, BASH, "backu") == ["backup"]
    assert serves_zsh(host.box, ZSH)
    host.systemctl("enable", "--now", "ai-ticket-backup.timer")
    host.systemctl("start", "ai-ticket-backup.service")
    drop_in = "/etc/systemd/system/ai-ticket.service.d"
    host.box.write(f"{drop_in}/override.conf", "[Service]\nNice=1\n")
    said = host.box.run(f"{CHECKOUT}/ops/install.sh", "--uninstall").stdout
    try:
        assert host.box.run("find", "/usr", "-xdev", "-name", "*ai-ticket*").stdout == ""
        assert host.box.run("find", "/var/lib/systemd", "-name", "*ai-ticket*").stdout == ""
        assert "/var/lib/ai-ticket" in said
        assert "/etc/ai-ticket" in said
        assert host.box.shell(f"cat {CONF}") == SETTINGS
        host.box.run("test", "-s", "/var/lib/ai-ticket/events.db")
        left = host.box.run("find", "/etc/systemd", "/opt", "-name", "*ai-ticket*").stdout.split()
        assert left == [drop_in]
        assert f"your changes by systemctl edit: {drop_in}\n" in said
        assert f"the nightly copies: {COPIES}\n" in said
        [remove] = [line for line in said.splitlines() if "rm -rf" in line]
        assert {drop_in, COPIES, "/var/lib/ai-ticket", "/etc/ai-ticket"} <= set(remove.split())
        assert host.systemctl("is-active", "ai-ticket.socket", check=False).returncode != 0
    finally:
        host.box.run("rm", "-rf", drop_in, COPIES)
        host.install()
    assert host.box.shell(f"cat {CONF}") == SETTINGS
    host.until(lambda: host.get("/ready").status == 200, "the daemon is ready")


def test_a_killed_daemon_loses_no_event_that_was_accepted(host: ServiceHost) -> None:
    host.start_kobold("--tokens-per-second", "20", port=5003)
    host.configure(whole=SETTINGS.replace(":5001", ":5003"))
    host.systemctl("restart", "ai-ticket.service")
    host.until(lambda: host.get("/ready").status == 200, "the daemon is ready")
    pid, event_ids = host.pid, submit(host, EVENTS)

    host.systemctl("kill", "--signal=KILL", "ai-ticket.service")

    def is_back() -> bool:
        return host.pid not in {0, pid} and host.shows("ActiveState") == "active"

    host.until(is_back, "another process serves")
    assert host.shows("RestartUSec") == "100ms"
    assert "queued" in states(host, event_ids[-3:])  # it was killed amid its work
    host.until(lambda: states(host, event_ids[-1:]) == ["succeeded"], "the last event has ended")
    assert states(host, event_ids) == ["succeeded"]
    told = host.box.run("ai-ticketctl", "why", event_ids[-1]).stdout
    assert f"the daemon was started: version 0.1.0, process {host.pid}" in told, told


def test_a_full_disk_degrades_the_service_and_more_room_mends_it(host: ServiceHost) -> None:
    """The state directory is a small file system of its own, and something else fills it."""
    host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
    host.box.shell(
        "mount -t tmpfs -o size=8m,mode=0700,uid=$(id -u ai-ticket),gid=$(id -g ai-ticket) "
        "tmpfs /var/lib/ai-ticket"
    )
    try:
        host.systemctl("start", "ai-ticket.socket", "ai-ticket.service")
        host.until(lambda: host.get("/ready").status == 200, "the daemon is ready")
        pid = host.pid
        host.box.shell("cat /dev/zero >/var/lib/ai-ticket/filler 2>/dev/null || true")

        refusals: list[Answer] = []

        def stays_full() -> bool:
            """Whether an event is refused and the store is still at fault after it.

            What ends meanwhile may find room that an event does not: then the store works again.
            """
            refusals.append(host.post(EVENT))
            refusals.append(host.get("/health"))
            return [answer.status for answer in refusals[-2:]] == [503, 503]

        host.until(stays_full, "intake is refused")
        assert "the disk is full" in refusals[-1].text
        assert host.get("/live").status == 200
        host.until(lambda: host.shows("StatusText").startswith("unhealthy"), "the status says so")

        host.box.shell("rm /var/lib/ai-ticket/filler")
        host.until(lambda: host.post(EVENT).status == 200, "events are taken again")
        host.until(lambda: host.get("/health").json["status"] == "healthy", "all is well")
        assert host.pid == pid
    finally:
        host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
        host.box.run("umount", "/var/lib/ai-ticket")


def test_a_flood_of_lines_into_a_stalled_journal_holds_up_no_client(host: ServiceHost) -> None:
    # Each of these signals makes a line of some kilobytes; one on its way swallows the next.
    flood = (
        "import os, signal, time\nfor _ in range(3000):\n"
        f"    os.kill({host.pid}, signal.SIGUSR1)\n    time.sleep(0.003)"
    )
    host.systemctl("kill", "--signal=STOP", "--kill-whom=main", "systemd-journald.service")
    began = time.monotonic()
    try:
        with host.load(CLIENTS) as load:
            host.box.run(PYTHON, "-c", flood)
            host.until(lambda: dropped(host) > 100, "lines are dropped rather than waited for")
    finally:
        stood_seconds = time.monotonic() - began
        host.systemctl("kill", "--signal=CONT", "--kill-whom=main", "systemd-journald.service")

    assert load.seen["failures"] == []
    # Journald stood still for the nine seconds of the flood, and longer on a busy machine: a client
    # that is held up waits for nearly all of them.
    assert load.seen["slowest_seconds"] < 2 / 3 * stood_seconds
    host.until(
        lambda: bool(host.journal("AI_TICKET_LOG=log_lines_dropped")), "the loss is in the journal"
    )


def dropped(host: ServiceHost) -> float:
    """Return how many lines of its log the daemon has dropped."""
    page = host.get("/metrics", 9464).text
    found = re.search(r"^ai_ticket_telemetry_log_lines_dropped_total (\S+)", page, re.MULTILINE)
    assert found, page
    return float(found[1])
