"""Chapters on looking, on changing a running daemon, and on what is to be done afterwards."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.testing.kobold import open_simulated_kobold
from tests.support.drills.stage import QUICK, WAIT_SECONDS
from tests.support.project import ROOT

if TYPE_CHECKING:
    from tests.support.drills.stage import Rehearse, Stage

pytestmark = pytest.mark.system

LOAD_TEST = "ai-ticketctl loadtest --rate 2 --seconds 2 --max-tokens 4"
STEADY = replace(QUICK, tokens_per_second=60)
SLOW = replace(QUICK, tokens_per_second=20)
"""Half a second and more for an event: what the machine adds to that is little."""


async def fail_one(stage: Stage, content: str = "Hello") -> str:
    """Have an event fail for good; return its id."""
    for server in (stage.primary, stage.standby):
        server.faults.script("wrong_shape", times=4)
    failed = (await stage.post(content)).json()
    for server in (stage.primary, stage.standby):
        server.faults.clear()
    assert failed["error"] == "api_response_structure_error"
    return str(failed["event_id"])


async def test_the_first_look_finds_what_is_wrong(rehearse: Rehearse) -> None:
    async with rehearse("The first five minutes") as stage:
        event_id = await fail_one(stage)
        stage.primary.faults.die(reset=True)
        await stage.until(lambda s: s["serving"]["role"] == "standby")

        status = await stage.run("ai-ticketctl status")
        assert "degraded" in status
        assert re.search(r"serving +standby: no primary is usable", status)
        assert "cannot be reached" in await stage.run("ai-ticketctl backends")
        listed = await stage.run("ai-ticketctl events list --state failed,expired --newer-than 15m")
        assert event_id in listed


async def test_one_event_is_followed_through_all_signals(rehearse: Rehearse) -> None:
    async with rehearse("Telemetry", 'telemetry.traces = "console"') as stage:
        event_id = await fail_one(stage)

        metrics = await stage.run(
            "curl -s http://localhost:9464/metrics | grep ^ai_ticket_pipeline"
        )
        assert 'ai_ticket_pipeline_events_total{outcome="failed"} 1.0' in metrics
        life = await stage.run("ai-ticketctl why EVENT", EVENT=event_id)
        assert "api_response_structure_error" in life
        shown = await stage.run("ai-ticketctl events show EVENT", EVENT=event_id)
        (ended,) = stage.logged("event_ended")
        traceparent = re.search(r"traceparent\W+00-(\w{32})-", shown)
        assert traceparent is not None
        assert traceparent[1] == ended["trace_id"]


async def test_the_formulas_for_scaling_hold(rehearse: Rehearse) -> None:
    async with (
        rehearse("Scaling", "events.default_timeout_seconds = 60", kobold=SLOW) as stage,
        open_simulated_kobold(SLOW) as second,
    ):
        # One slot, then two: twice as many events a second, and half as long until it is done.
        for slots in (1, 2):
            if slots == 2:
                stage.configure(servers={"primary": stage.primary.url, "second": second.url})
                assert "second" in await stage.run("ai-ticketctl reload --plan")
                await stage.run("ai-ticketctl reload")
                await stage.until(lambda s: s["capacity"] == 2)
            share = await share_of_the_formula(stage, slots)
            for _ in range(2):  # a host that is busy with others takes longer, now and then
                if share >= 1.5:
                    share = await share_of_the_formula(stage, slots)
            assert 0.75 < share < 1.5

        assert re.search(r"verdict +met", await stage.run(LOAD_TEST))


async def share_of_the_formula(stage: Stage, slots: int) -> float:
    """Work off a queue; return how long that took, as a part of what the formula says."""
    before, begun = await attempts(stage), time.monotonic()
    await queue_of(stage, 4)
    seconds = time.monotonic() - begun
    count, total = (a - b for a, b in zip(await attempts(stage), before, strict=True))
    assert count == 4
    return seconds / (total / slots)


async def attempts(stage: Stage) -> tuple[float, float]:
    """Return how many generations there were, and how many seconds they took."""
    page = await stage.shell("curl -s http://localhost:9464/metrics")
    values = dict.fromkeys(("count", "sum"), 0.0)
    name = r"^ai_ticket_kobold_request_duration_seconds_(count|sum)\{.*\} (\S+)"
    for kind, value in re.findall(name, page, flags=re.MULTILINE):
        values[kind] += float(value)
    return values["count"], values["sum"]


async def queue_of(stage: Stage, count: int) -> None:
    """Hand in so many events at once, and wait until all are done."""
    batch = [{"content": f"Ticket {number}", "max_tokens": 12} for number in range(count)]
    answers = (await stage.client.post("/events", json=batch)).json()
    assert [answer["status"] for answer in answers] == [200] * count


async def test_traffic_is_moved_and_moved_back(rehearse: Rehearse) -> None:
    async with rehearse("Move the traffic", kobold=STEADY) as stage:
        (running,) = await stage.leave(max_tokens=60)
        await stage.until(lambda s: s["in_flight"] == 1)

        await stage.run("ai-ticketctl failover standby")
        await stage.run('ai-ticketctl submit "Hello" --max-tokens 4')
        (moved,) = await stage.ask("events", "list", "--limit", "1")
        assert moved["backend"] == "standby"
        await stage.succeeded(2)
        shown = await stage.ask("events", "show", running)
        assert (shown["backend"], len(shown["attempts"])) == ("primary", 1)
        await stage.run("ai-ticketctl auto")
        await stage.run("ai-ticketctl failback")
        assert re.search(r"serving +primary:", await stage.run("ai-ticketctl status"))
        assert (await stage.post()).json()["backend"] == "primary"


async def test_the_load_is_lowered_while_events_run_and_none_is_lost(
    rehearse: Rehearse,
) -> None:
    async with rehearse("Lower the load", kobold=STEADY) as stage:
        servers = {"primary": stage.primary.url, "second": stage.standby.url}
        stage.configure(servers=servers)
        await stage.shell("ai-ticketctl reload")
        await stage.until(lambda s: s["capacity"] == 2)
        # Nobody is done before the order, however long the operator takes.
        for server in (stage.primary, stage.standby):
            server.faults.slow_down(tokens_per_second=0.5)
        await stage.leave(8, max_tokens=60)
        await stage.until(lambda s: s["in_flight"] == 2)

        stage.configure("pipeline.max_concurrency = 1", servers=servers)
        plan = await stage.run("ai-ticketctl reload --plan")
        assert "pipeline.max_concurrency: 8 -> 1" in plan
        await stage.run("ai-ticketctl reload")
        stage.primary.faults.clear()
        lowered = await stage.until(lambda s: s["in_flight"] == 1)
        assert lowered["queue"]["queued"] == 6
        stage.standby.faults.clear()
        running = [lowered["in_flight"]]
        while (status := await stage.status())["queue"]["succeeded"] < 8:
            running.append(status["in_flight"])

        assert max(running) == 1
        await stage.succeeded(8)
        assert "in_flight" in await stage.run(
            "curl -s http://localhost:9464/metrics | grep ^ai_ticket_pipeline_in_flight"
        )


async def test_more_is_logged_and_what_fails_is_kept(rehearse: Rehearse) -> None:
    async with rehearse("Log more, and keep what fails") as stage:
        await stage.run("ai-ticketctl log-level debug")
        await stage.run("ai-ticketctl capture 20")
        event_id = await fail_one(stage, "Call 0151 23456789, the printer burns.")
        await stage.until_logged("request")
        with trio.fail_after(WAIT_SECONDS):
            while not list((stage.store.parent / "captures").glob("*")):  # noqa: ASYNC110
                await trio.sleep(0.02)

        assert event_id in await stage.run("ls /var/lib/ai-ticket/captures")
        await stage.run("ai-ticketctl reload")
        status = await stage.ask("status")
        assert (status["log_level"], status["capture_payloads"]) == ("info", 0)


async def test_afterwards_everything_is_put_in_order(rehearse: Rehearse) -> None:
    async with rehearse("Afterwards") as stage:
        for part in ("docs/adr", "ops"):
            shutil.copytree(ROOT / part, stage.folder / part)
        event_id = await fail_one(stage)

        status = await stage.run("ai-ticketctl status")
        assert not re.search("pinned|paused|draining", status)
        await stage.run("ai-ticketctl audit")
        await stage.run("ai-ticketctl events retry --newer-than 1d --yes")
        await stage.succeeded(1)
        life = await stage.run("ai-ticketctl why EVENT", EVENT=event_id)
        assert "attempt 1 failed" in life
        assert "succeeded on" in life
        await stage.run("ai-ticketctl bundle --output incident.tar.gz")
        assert (stage.folder / "incident.tar.gz").stat().st_size > 1000
        made = (await stage.run('ops/new-adr.sh "A standby in another rack"')).strip()
        record = (stage.folder / made).read_text()
        assert re.match(r"# \d+\. A standby in another rack\n\n## Status\n", record)
        assert re.search(r"verdict +met", await stage.run(LOAD_TEST))


async def test_maintenance_loses_nothing(rehearse: Rehearse) -> None:
    async with rehearse("Maintenance", "backends.failback_after_seconds = 0.5") as stage:
        await stage.run("ai-ticketctl pause")
        await stage.leave(2)
        await stage.until(lambda s: s["queue"]["queued"] == 2)
        await stage.run("ai-ticketctl unpause")
        await stage.succeeded(2)

        await stage.run("ai-ticketctl drain")
        assert (await stage.client.get("/ready")).status_code == 503
        await stage.run("ai-ticketctl resume")
        assert (await stage.client.get("/ready")).status_code == 200

        assert "all met" in await stage.run("ai-ticketctl drill failover")
        for command in (
            "ai-ticketctl drill failover --unreachable --yes --rate 5",
            "ai-ticketctl drill failover --yes --rate 5",
        ):
            assert re.search(r"verdict +passed", await stage.run(command))
        assert json.loads(await stage.shell("ai-ticketctl --json audit"))["difference"] == 0
