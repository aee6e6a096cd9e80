"""Metrics, alerts and the dashboard on Prometheus and Alertmanager, as Debian ships them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.telemetry import TelemetryConfig, TracesExporter
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.telemetry.reference import families
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.project import ROOT
from tests.support.system.monitoring import (
    OPS,
    alertmanager,
    need_tools,
    prometheus,
    tool,
    until,
    webhook,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ai_ticket_daemon.testing.daemon import RunningDaemon
    from ai_ticket_daemon.testing.kobold import SimulatedKobold

pytestmark = pytest.mark.system

RULES = OPS / "prometheus"
RUNBOOK = ROOT / "docs/runbook.md"


@pytest.fixture(autouse=True)
def tools() -> None:
    need_tools()


def alerts() -> dict[str, str]:
    """Return the text of each alert by its name."""
    text = (RULES / "alerts.rules.yml").read_text()
    _, *parts = re.split(r"^      - alert: ", text, flags=re.MULTILINE)
    return {part.split("\n", 1)[0]: part for part in parts}


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    code, said = tool("promtool", "check", "config", "prometheus.yml", folder=RULES)
    assert code == 0, said
    files = [rules.name for rules in RULES.glob("*.rules.yml")]
    code, said = tool("promtool", "check", "rules", "--lint-fatal", *files, folder=RULES)
    assert code == 0, said


def test_each_alert_fires_when_it_should_and_is_silent_when_it_should_not() -> None:
    code, said = tool("promtool", "test", "rules", "alerts_test.yml", folder=RULES)
    assert code == 0, said


@pytest.mark.parametrize("broken", ["< 0", ">= 0"], ids=["never fires", "always fires"])
def test_the_tests_of_each_alert_would_notice_a_wrong_rule(broken: str, tmp_path: Path) -> None:
    for file in RULES.glob("*.yml"):
        shutil.copy(file, tmp_path)
    text = (RULES / "alerts.rules.yml").read_text()
    # One series for each instance, whatever the alert looks at.
    everything = 'expr: count by (job, instance) ({job="ai-ticket"}) ' + broken
    text = re.sub(r"expr: .*?(?=\n {8}(?:for|labels):)", everything, text, flags=re.DOTALL)
    text = re.sub(r"\n {8}for: .*", "", text)
    (tmp_path / "alerts.rules.yml").write_text(text)
    code, said = tool("promtool", "test", "rules", "alerts_test.yml", folder=tmp_path)
    assert code == 1
    unnoticed = {name for name in alerts() if f'alertname="{name}"' not in said.replace("\\", "")}
    # One is tested from its first moment on, another one has no silent time on that instance.
    assert unnoticed <= ({"AiTicketActorRestarts"} if broken == ">= 0" else set())


def test_each_alert_says_what_is_the_matter_and_where_to_read_on() -> None:
    headings = set()
    if RUNBOOK.exists():
        headings = {
            re.sub(r"[^\w-]", "", line.lstrip("# ").lower().replace(" ", "-"))
            for line in RUNBOOK.read_text().splitlines()
            if line.startswith("#")
        }
    for name, rule in alerts().items():
        assert re.search(r"labels: \{severity: (critical|warning|info)\}", rule), name
        for annotation in ("summary", "description"):
            assert re.search(rf"^          {annotation}: .{{20,}}", rule, re.MULTILINE), name
        assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in rule
        assert not headings or name.lower() in headings, f"the runbook has no chapter {name}"


def test_the_links_to_the_runbook_can_be_made_addresses(tmp_path: Path) -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    [command] = re.findall(r"^\$ sudo (sed -i .*runbook.*)$", page, flags=re.MULTILINE)
    rules = tmp_path / "alerts.rules.yml"
    shutil.copy(RULES / rules.name, rules)

    here = command.replace("/etc/prometheus/alerts.rules.yml", str(rules))
    subprocess.run(["bash", "-c", here], check=True, timeout=60)

    code, said = tool("promtool", "check", "rules", rules)
    assert code == 0, said
    addresses = re.findall(r"^ *runbook_url: (.*)$", rules.read_text(), flags=re.MULTILINE)
    assert len(addresses) == len(alerts())
    assert all(re.fullmatch(r"https://\S+/docs/runbook\.md#\w+", url) for url in addresses)


def test_every_alert_is_in_the_documents() -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    listed = dict(re.findall(r"^\| `(AiTicket\w+)` \| (\w+) \|", page, flags=re.MULTILINE))
    severities = {
        name: match[1]
        for name, rule in alerts().items()
        if (match := re.search(r"severity: (\w+)", rule))
    }
    assert listed == severities


def test_amtool_accepts_the_configuration_and_routes_by_severity() -> None:
    config = OPS / "alertmanager/alertmanager.yml"
    code, said = tool("amtool", "check-config", config)
    assert code == 0, said
    for severity, receiver in {
        "critical": "pager",
        "warning": "tickets",
        "info": "digest",
        "unheard_of": "tickets",
    }.items():
        code, said = tool(
            "amtool", "config", "routes", "test", f"--config.file={config}", f"severity={severity}"
        )
        assert (code, said.split()[-1]) == (0, receiver)


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Yield each panel's title and one of its queries, with Grafana's variables filled in."""
    dashboard = json.loads((OPS / "grafana/ai-ticket.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".+")
            assert "$" not in expression
            assert "vector(" not in expression, "a query that always finds something proves nothing"
            yield panel["title"], expression


def names_in(expression: str) -> set[str]:
    return {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in re.findall(r"\bai_ticket_\w+", expression)
    }


def test_dashboard_and_rules_know_only_families_that_exist() -> None:
    existing = {family.name for family in families()}
    for _, expression in dashboard_queries():
        assert names_in(expression) <= existing
    for rules in RULES.glob("*.rules.yml"):
        expressions = re.sub(
            r"^ *(description|summary): .*$", "", rules.read_text(), flags=re.MULTILINE
        )
        assert names_in(expressions) <= existing


async def test_prometheus_sees_traffic_and_a_failover_and_alertmanager_tells_of_it(
    tmp_path: Path,
) -> None:
    settings = KoboldSettings().scaled(0.1)
    telemetry = TelemetryConfig(traces=TracesExporter.CONSOLE)
    with webhook() as (address, received):
        async with (
            open_simulated_kobold(settings) as primary,
            open_simulated_kobold(settings) as standby,
            open_daemon(daemon_config(primary, standby, telemetry)) as daemon,
            alertmanager(tmp_path / "alertmanager", address) as manager,
            prometheus(
                tmp_path / "prometheus",
                f"127.0.0.1:{daemon.daemon.metrics_port}",
                manager.address,
            ) as server,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):

            async def sees(expression: str) -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = await until(
                    lambda: server.query(expression), lambda: expression
                )
                return found

            await sees('up{job="ai-ticket"} == 1')
            assert await server.query('ALERTS{alertstate="firing"}') == []

            await everything_that_happens(daemon, client, primary)
            await sees('ai_ticket_pipeline_events_total{outcome="succeeded"} >= 5')
            await sees('ai_ticket_pipeline_retries_total{error="api_server_error"} >= 1')
            exemplars = await server.get(
                "/api/v1/query_exemplars",
                query="ai_ticket_kobold_request_duration_seconds_bucket",
                start="0",
                end="9999999999",
            )
            assert exemplars[0]["exemplars"][0]["labels"]["trace_id"]

            primary.faults.die()
            answer = await client.post("/event", json={"content": "still there?", "max_tokens": 4})
            assert answer.json()["backend"] == "standby"
            await sees('ALERTS{alertname="AiTicketOnStandby", alertstate="firing"}')
            await sees('ALERTS{alertname="AiTicketBackendDown", alertstate="pending"}')
            for title, expression in dashboard_queries():
                assert await sees(expression), title
            await until(
                lambda: told(received.named("tickets", "AiTicketOnStandby")),
                lambda: received.alerts,
            )
            (alert, *_) = received.named("tickets", "AiTicketOnStandby")
            assert "works on the standby" in alert["annotations"]["summary"]
            assert alert["annotations"]["runbook_url"].endswith("#aiticketonstandby")

            standby.faults.die()
            await sees('ALERTS{alertname="AiTicketNoBackend", alertstate="pending"}')

            rules = await server.get("/api/v1/rules")
            states = [rule for group in rules["groups"] for rule in group["rules"]]
            assert len(states) > 25
            assert {rule["health"] for rule in states} == {"ok"}

            added = await trio.to_thread.run_sync(
                lambda: tool(
                    "amtool",
                    f"--alertmanager.url=http://{manager.address}",
                    *("alert", "add", "AiTicketTest", "severity=critical", "instance=test"),
                )
            )
            assert added[0] == 0, added[1]
            await until(
                lambda: told(received.named("pager", "AiTicketTest")), lambda: received.alerts
            )
    assert "/digest" not in received.alerts


async def told(alerts: list[dict[str, Any]]) -> bool:
    await trio.lowlevel.checkpoint()
    return bool(alerts)


def daemon_config(
    primary: SimulatedKobold, standby: SimulatedKobold, telemetry: TelemetryConfig
) -> Any:
    config = config_for(
        ServerConfig(name="primary", url=primary.url, role=BackendRole.PRIMARY),
        ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
    )
    return replace(
        config, telemetry=telemetry, pipeline=PipelineConfig(backoff_seconds=0.01, drain_seconds=1)
    )


async def everything_that_happens(
    daemon: RunningDaemon, client: httpx.AsyncClient, primary: SimulatedKobold
) -> None:
    """Make series of every kind: answers, mistakes, retries, aborts, a batch, a reload."""
    for number in range(5):
        body = {"content": f"ticket {number}", "max_tokens": 4, "stream": number == 4}
        assert (await client.post("/event", json=body)).status_code == 200
    assert (await client.post("/event", json={"no": "content"})).status_code == 400
    primary.faults.script("server_error", times=1)
    assert (await client.post("/event", json={"content": "again", "max_tokens": 4})).is_success
    primary.faults.stall(after_tokens=1, ignores_abort=False)
    late = {"content": "late", "max_tokens": 40, "timeout_seconds": 0.5}
    assert (await client.post("/event", json=late)).status_code == 504
    primary.faults.clear()
    outcomes = await daemon.daemon._pipeline.run_batch([event(number) for number in range(3)])
    assert len(outcomes) == 3
    daemon.daemon._reloader.reload()


def event(number: int) -> Event:
    return Event(
        f"01890a5d-ac96-774b-bcce-b302099a80{number:02d}",
        (Message(Role.USER, f"batch {number}"),),
        Sampling(max_tokens=2),
        submitted_at=time.time(),
        deadline_at=time.time() + 60,
    )
