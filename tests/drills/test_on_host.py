"""Chapters that need a host: its systemd, its journal, and a Prometheus that watches it.

A container is booted once, and set up by the very chapter on that.
"""

from __future__ import annotations

import re
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import pytest

from tests.support.drills.runbook import following
from tests.support.system.container import container
from tests.support.system.monitoring import OPS, TOOLS, need_tools
from tests.support.system.service_host import (
    CHECKOUT,
    CONF,
    GIVING_UP_SECONDS,
    PYTHON,
    SETTINGS,
    WHEELHOUSE,
    ServiceHost,
    copy_checkout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

PROMETHEUS_PORT = 9090
STORE = "/var/lib/ai-ticket/events.db"
STANDBY = """
[[backends.server]]
name = "standby"
url = "http://127.0.0.1:5002"
role = "standby"
"""
PROMETHEUS_UNIT = """\
[Service]
ExecStart=/usr/local/bin/prometheus --config.file=/etc/prometheus/prometheus.yml \\
  --storage.tsdb.path=/run/prometheus
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
"""
PROGRAM = (
    "import sys; from ai_ticket_daemon import __main__, app; "
    "app.Daemon._toggle_debug = lambda self: 1 / 0; sys.exit(__main__.main(sys.argv[1:]))"
)
CRASHES_UPON_USR2 = f"""\
[Service]
ExecStart=
ExecStart={PYTHON} -c "{PROGRAM}" --config {CONF}
"""
LOSE_ONE = f"""\
import sqlite3
with sqlite3.connect("{STORE}", timeout=60) as store:
    store.execute("DELETE FROM event WHERE seq = (SELECT max(seq) FROM event)")
    store.execute("UPDATE tally SET value = value - 1 WHERE name = 'succeeded'")
"""
LONG_SECONDS = 10.5
"""A third of the watchdog's 30 seconds, and a little."""


class Run(Protocol):
    """Runs the next command of the chapter on the host, as root."""

    def __call__(self, command: str, code: int = 0, **blanks: str) -> str: ...


@contextmanager
def on_host(host: ServiceHost, heading: str) -> Iterator[Run]:
    """Follow a chapter for the length of a block."""
    with following(heading, on_host=True) as page:

        def run(command: str, code: int = 0, **blanks: str) -> str:
            page.turn_to(command)
            text = command
            for word, value in blanks.items():
                text = re.sub(rf"\b{word}\b", value, text)
            # The host has no network.
            text = text.replace("ops/install.sh", f"ops/install.sh --wheelhouse {WHEELHOUSE}")
            if "journalctl" in text:
                host.box.run("journalctl", "--sync")
            done = host.box.run(
                "bash", "-c", f"cd {CHECKOUT}; set -o pipefail; {text}", check=False
            )
            told = done.stdout + done.stderr
            assert done.returncode == code, f"{text}: {done.returncode}\n{told}"
            return told

        yield run


@pytest.fixture(scope="module")
def fresh_host(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceHost]:
    """A host with a checkout, a wheelhouse and a Prometheus, as Debian has them."""
    need_tools()
    with container(tmp_path_factory.mktemp("host"), "drills") as box:
        root = box.root
        shutil.copytree(wheelhouse, root / WHEELHOUSE.lstrip("/"))
        copy_checkout(root / CHECKOUT.lstrip("/"))
        for tool in ("prometheus", "promtool"):
            shutil.copy(TOOLS / tool, root / "usr/local/bin")
        box.write("/etc/prometheus/prometheus.yml", "")
        box.write("/etc/systemd/system/prometheus.service", PROMETHEUS_UNIT)
        box.shell("systemctl daemon-reload; systemctl start prometheus")
        yield ServiceHost(box)


@pytest.fixture(scope="module")
def bootstrapped_host(fresh_host: ServiceHost) -> ServiceHost:
    """The host after the chapter on bootstrapping."""
    host = fresh_host
    with on_host(host, "Bootstrap") as run:
        run("ops/install.sh")
        for port in (5001, 5002):
            host.start_kobold("--instant", "--control-port", f"{port + 1000}", port=port)
        host.configure(whole=SETTINGS + STANDBY)
        assert "valid" in run(
            "ai-ticket-daemon --config /etc/ai-ticket/ai-ticket.conf --check-config"
        )
        run("systemctl reload ai-ticket")
        assert "active (running)" in run("systemctl status ai-ticket")

        expect_both_usable(host)
        assert "standby" in run("ai-ticketctl status")
        run('ai-ticketctl submit "Hello" --max-tokens 8')
        assert "succeeded" in run("ai-ticketctl events list --limit 1")

        run(
            "cp ops/prometheus/recording.rules.yml ops/prometheus/alerts.rules.yml /etc/prometheus/"
        )
        run("cp --backup=numbered ops/prometheus/prometheus.yml /etc/prometheus/")
        assert "SUCCESS" in run("promtool check config /etc/prometheus/prometheus.yml")
        run("systemctl reload prometheus")
    shipped = (OPS / "prometheus/prometheus.yml").read_text()
    host.box.write("/etc/prometheus/prometheus.yml", shipped.replace("15s", "500ms"))
    host.systemctl("reload", "prometheus")
    return host


@pytest.fixture
def host(bootstrapped_host: ServiceHost) -> ServiceHost:
    """The host, everything in order, and nothing remembered of what was."""
    host = bootstrapped_host
    host.systemctl("stop", "ai-ticket.service")
    host.box.shell(f"rm -rf /run/systemd/system/ai-ticket*.d {STORE}*; systemctl daemon-reload")
    host.box.shell("systemctl reset-failed 'ai-ticket*' || true")
    host.configure(whole=SETTINGS + STANDBY)
    for port in (5001, 5002):
        control(host, port, "clear")
    host.systemctl("start", "ai-ticket.socket", "ai-ticket.service")
    expect_both_usable(host)
    return host


def control(host: ServiceHost, port: int, deed: str, **fault: object) -> None:
    """Tell a simulated server to be ill, or well."""
    url = f"http://127.0.0.1:{port + 1000}/{deed}"
    told = host.ask(url, fault)
    assert told.status == 200, told


def health(host: ServiceHost) -> dict[str, Any]:
    """Return what the daemon says of itself; nothing while it does not run."""
    answer = host.get("/health")
    found: dict[str, Any] = answer.json if answer.status else {"status": "", "backends": []}
    return found


def usable(host: ServiceHost) -> int:
    return sum(backend["state"] == "ready" for backend in health(host)["backends"])


def expect_both_usable(host: ServiceHost) -> None:
    host.until(lambda: usable(host) == 2, "both servers are usable")


def primary_dies(host: ServiceHost) -> None:
    control(host, 5001, "fault", kind="die")
    host.until(lambda: health(host)["status"] == "degraded", "the standby serves")


def firing(host: ServiceHost, alert: str) -> bool:
    """Whether Prometheus says that the shipped alert is pending or fires."""
    query = quote(f'ALERTS{{alertname="{alert}"}}')
    asked = host.get(f"/api/v1/query?query={query}", PROMETHEUS_PORT)
    assert asked.status == 200, asked
    return bool(asked.json["data"]["result"])


def expect_alert(host: ServiceHost, alert: str, *, there: bool = True) -> None:
    host.until(lambda: firing(host, alert) is there, f"{alert}: {there}")


def expect_line(host: ServiceHost, event: str, **fields: object) -> None:
    matches = (f"AI_TICKET_LOG={event}", *(f"{name}={value}" for name, value in fields.items()))
    host.until(lambda: bool(host.journal(*matches)), f"the line {event}")


def metric(host: ServiceHost, name: str) -> float:
    """Return a metric that has no labels, or one set of them."""
    page = host.get("/metrics", 9464).text
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


# ---------------------------------------------------------------------------------- looking


def test_the_first_look(host: ServiceHost) -> None:
    with on_host(host, "The first five minutes") as run:
        primary_dies(host)
        assert "serving  standby: no primary is usable" in run("ai-ticketctl status")
        assert "cannot be reached" in run("ai-ticketctl backends")
        assert "failover" in run("journalctl -u ai-ticket -p warning -n 50")
        run("ai-ticketctl events list --state failed,expired --newer-than 15m")


def test_one_event_through_all_signals(host: ServiceHost) -> None:
    primary_dies(host)
    event_id = host.post({"content": "a ticket", "max_tokens": 4}).json["event_id"]
    with on_host(host, "Telemetry") as run:
        assert "succeeded" in run(
            "curl -s http://localhost:9464/metrics | grep ^ai_ticket_pipeline"
        )
        assert "succeeded on standby" in run("ai-ticketctl why EVENT", EVENT=event_id)
        line = run("journalctl -u ai-ticket AI_TICKET_EVENT_ID=EVENT", EVENT=event_id)
        assert "succeeded" in line
        assert "traceparent" in run("ai-ticketctl events show EVENT", EVENT=event_id)
        explained = run("journalctl -x -u ai-ticket AI_TICKET_LOG=failover -n 5")
        assert "Subject:" in explained
        run("systemctl kill --signal=USR1 --kill-whom=main ai-ticket")
        expect_line(host, "task_tree", _PID=host.pid)
        assert "prober" in run("journalctl -u ai-ticket AI_TICKET_LOG=task_tree -n 1")


# ----------------------------------------------------------------------------------- servers


def test_a_backend_that_fails(host: ServiceHost) -> None:
    # Not taken for down by that: it goes on being asked, and goes on failing.
    host.configure(whole="backends.fall = 100\n" + SETTINGS + STANDBY)
    host.systemctl("reload", "ai-ticket.service")
    with on_host(host, "AiTicketBackendErrors") as run:
        control(host, 5001, "fault", kind="script", answer="server_error")
        for _ in range(6):
            host.post({"content": "a ticket", "max_tokens": 4})
        expect_alert(host, "AiTicketBackendErrors")

        run("ai-ticketctl backends")
        said = run("journalctl -u ai-ticket AI_TICKET_LOG=attempt_failed -n 20")
        assert "api_server_error" in said
        run("ai-ticketctl failover standby")
        assert host.post({"content": "a ticket"}).json["backend"] == "standby"
        control(host, 5001, "clear")
        control(host, 5001, "fault", kind="restart")
        expect_both_usable(host)
        run("ai-ticketctl auto")
        run("ai-ticketctl failback")

        assert host.post({"content": "a ticket"}).json["backend"] == "primary"
        assert "ready" in run("ai-ticketctl backends")
        assert 'error="api_server_error"' in run(
            "curl -s http://localhost:9464/metrics | grep ^ai_ticket_kobold_request_failures_total"
        )


def test_a_flapping_primary(host: ServiceHost) -> None:
    with on_host(host, "AiTicketFlapping") as run:
        primary_dies(host)

        assert "cannot be reached" in run("ai-ticketctl backends")
        assert "to_backend=standby" in run("journalctl -u ai-ticket AI_TICKET_LOG=failover -n 5")
        run("ai-ticketctl failover standby")
        control(host, 5001, "clear")
        expect_both_usable(host)
        assert "standby is pinned" in run("ai-ticketctl status")
        run("ai-ticketctl auto")
        run("ai-ticketctl failback")
    assert host.post({"content": "a ticket"}).json["backend"] == "primary"


# -------------------------------------------------------------------------------- the daemon


def test_a_service_that_systemd_has_given_up(host: ServiceHost) -> None:
    with on_host(host, "AiTicketDown") as run:
        host.configure("pipeline.max_concurrency = 0\n")
        host.systemctl("kill", "--signal=KILL", "--kill-whom=main", "ai-ticket.service")
        host.until(
            lambda: host.shows("ActiveState") == "failed",
            "systemd has given up",
            GIVING_UP_SECONDS,
        )
        expect_alert(host, "AiTicketDown")

        assert "78" in run("systemctl status ai-ticket", code=3)
        assert "pipeline.max_concurrency" in run("journalctl -u ai-ticket -p warning -n 20")
        host.configure(whole=SETTINGS + STANDBY)
        run("systemctl reset-failed ai-ticket")
        run("systemctl start ai-ticket")

        expect_both_usable(host)
        assert re.search("status +healthy", run("ai-ticketctl status"))
        run("ai-ticketctl audit")
        expect_alert(host, "AiTicketDown", there=False)


def test_lost_events_and_a_good_backup(host: ServiceHost) -> None:
    for _ in range(2):
        assert host.post({"content": "a ticket", "max_tokens": 4}).status == 200
    host.box.shell(f"cd {CHECKOUT}; ai-ticketctl backup --output good.db")
    host.box.run(PYTHON, "-c", LOSE_ONE)
    with on_host(host, "AiTicketEventsLost") as run:
        expect_alert(host, "AiTicketEventsLost")

        run("ai-ticketctl audit", code=1)
        run("ai-ticketctl drain")
        run("ai-ticketctl bundle --output evidence.tar.gz")
        run("systemctl stop ai-ticket.socket ai-ticket")
        run("cp -a /var/lib/ai-ticket evidence")
        run("ai-ticketctl restore good.db --to /var/lib/ai-ticket/events.db")
        run("systemctl start ai-ticket.socket ai-ticket")

        run("ai-ticketctl audit")
        expect_alert(host, "AiTicketEventsLost", there=False)
    assert host.post({"content": "a ticket", "max_tokens": 4}).status == 200


def test_a_part_that_crashes(host: ServiceHost) -> None:
    restarts = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_actor_restarts_total"
    host.drop_in(CRASHES_UPON_USR2)
    host.systemctl("restart", "ai-ticket.service")
    expect_both_usable(host)
    with on_host(host, "AiTicketActorRestarts") as run:
        host.systemctl("kill", "--signal=USR2", "--kill-whom=main", "ai-ticket.service")
        expect_line(host, "actor_restarted", _PID=host.pid)
        expect_alert(host, "AiTicketActorRestarts")

        before = run(restarts)
        assert 'actor="signals"} 1.0' in before
        said = run("journalctl -u ai-ticket AI_TICKET_LOG=actor_restarted -n 5")
        assert "ZeroDivisionError" in said
        run("ai-ticketctl bundle --output bundle.tar.gz")
        assert run(restarts) == before
        run('ai-ticketctl submit "Hello" --max-tokens 4')
    host.box.shell(f"rm {CHECKOUT}/bundle.tar.gz")


def test_a_daemon_that_stood_still(host: ServiceHost) -> None:
    lag = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_event_loop_lag_seconds"
    pid = host.pid
    with on_host(host, "AiTicketWatchdogNear") as run:
        host.systemctl("kill", "--signal=STOP", "--kill-whom=main", "ai-ticket.service")
        time.sleep(LONG_SECONDS)  # the trouble itself
        host.systemctl("kill", "--signal=CONT", "--kill-whom=main", "ai-ticket.service")
        expect_alert(host, "AiTicketWatchdogNear")
        assert host.pid == pid

        run("cat /proc/loadavg")
        run('grep -E "MemAvailable|SwapFree" /proc/meminfo')
        assert float(run(lag).split()[1]) > 10
        run("systemctl kill --signal=USR1 --kill-whom=main ai-ticket")
        expect_line(host, "task_tree", _PID=pid)
        run("journalctl -u ai-ticket AI_TICKET_LOG=task_tree -n 1")
        run("ai-ticketctl bundle --output bundle.tar.gz")
        run("systemctl restart ai-ticket")

        assert float(run(lag).split()[1]) < 1
        expect_alert(host, "AiTicketWatchdogNear", there=False)
    host.box.shell(f"rm {CHECKOUT}/bundle.tar.gz")


def test_lines_that_journald_does_not_take(host: ServiceHost) -> None:
    dropped = "ai_ticket_telemetry_log_lines_dropped_total"
    host.box.shell("kill -STOP $(systemctl show -P MainPID systemd-journald)")
    with on_host(host, "AiTicketLogLinesDropped") as run:
        # The longest line there is, until 4 MiB of them wait.
        shout = f"for i in $(seq 100); do kill -USR1 {host.pid}; sleep 0.01; done"
        host.until(lambda: not host.box.shell(shout) and metric(host, dropped) > 0, "some are lost")
        assert host.post({"content": "a ticket", "max_tokens": 4}).status == 200
        host.box.shell(shout)
        expect_alert(host, "AiTicketLogLinesDropped")

        assert not run(f"curl -s http://localhost:9464/metrics | grep ^{dropped}").endswith(
            " 0.0\n"
        )
        assert "systemd-journald" in run("systemctl status systemd-journald")
        run("df -h /run/log/journal")
        run("ai-ticketctl log-level warning")
        run("systemctl restart systemd-journald")

        expect_line(host, "log_lines_dropped", _PID=host.pid)
        said = run("journalctl -u ai-ticket AI_TICKET_LOG=log_lines_dropped -n 1")
        assert "had to be dropped" in said or "dropped" in said
        run("ai-ticketctl reload")
    before = metric(host, dropped)
    assert host.post({"content": "a ticket", "max_tokens": 4}).status == 200
    assert metric(host, dropped) == before
