"""Chapters on the servers: each is made ill for real, and mended as the runbook says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.testing.kobold import open_simulated_kobold
from tests.support.drills.stage import QUICK

if TYPE_CHECKING:
    from tests.support.drills.stage import Rehearse, Stage

pytestmark = pytest.mark.system

LOAD_TEST = "ai-ticketctl loadtest --rate 2 --seconds 2 --max-tokens 4 --slo-p95 2"
FAILURES = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_kobold_request_failures_total"


async def primary_dies(stage: Stage) -> None:
    stage.primary.faults.die(reset=True)
    await stage.until(lambda s: s["serving"]["role"] == "standby")


async def all_usable(stage: Stage) -> None:
    await stage.until(lambda s: all(backend["usable"] for backend in s["backends"]))


async def test_no_backend_and_one_that_has_moved(rehearse: Rehearse) -> None:
    async with (
        rehearse("AiTicketNoBackend") as stage,
        open_simulated_kobold(QUICK) as moved,
    ):
        stage.primary.faults.die(reset=True)
        stage.standby.faults.die(reset=True)
        await stage.alert_begins("AiTicketNoBackend")
        await stage.leave(2)
        assert (await stage.post()).json()["error"] == "no_backend_available"

        assert "unhealthy" in await stage.run("ai-ticketctl status")
        assert "cannot be reached" in await stage.run("ai-ticketctl backends")
        stage.configure(servers={"primary": moved.url, "standby": f"{stage.standby.url} standby"})
        assert moved.url in await stage.run("ai-ticketctl reload --plan")
        await stage.run("ai-ticketctl reload")

        await stage.succeeded(2)
        assert "0 queued; 0 running of 1" in await stage.run("ai-ticketctl status")
        await stage.alert_ends("AiTicketNoBackend")


async def test_a_backend_that_is_down_is_taken_out(rehearse: Rehearse) -> None:
    look = "curl -sS -m 2 http://127.0.0.1:5001/api/extra/perf"
    async with rehearse("AiTicketBackendDown") as stage:
        await primary_dies(stage)
        await stage.alert_begins("AiTicketBackendDown")

        assert "down" in await stage.run("ai-ticketctl backends")
        assert "Failed to connect" in await stage.run(look, code=7)
        stage.configure(servers={"standby": stage.standby.url})
        assert "primary" in await stage.run("ai-ticketctl reload --plan")
        await stage.run("ai-ticketctl reload")

        assert "down" not in await stage.run("ai-ticketctl backends")
        await stage.alert_ends("AiTicketBackendDown")
        await stage.alert_ends("AiTicketOnStandby")
        assert (await stage.post()).json()["backend"] == "standby"


async def test_the_primary_serves_again_after_the_standby(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketOnStandby") as stage:
        await primary_dies(stage)
        await stage.shell("ai-ticketctl failover standby")
        await stage.alert_begins("AiTicketOnStandby")

        assert "standby is pinned" in await stage.run("ai-ticketctl status")
        assert "down" in await stage.run("ai-ticketctl backends")
        stage.primary.faults.clear()
        await all_usable(stage)
        await stage.run("ai-ticketctl auto")
        await stage.run("ai-ticketctl failback")

        assert re.search(r"serving +primary:", await stage.run("ai-ticketctl status"))
        await stage.alert_ends("AiTicketOnStandby")
        assert (await stage.post()).json()["backend"] == "primary"


async def test_a_flapping_primary_is_kept_out(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketFlapping", "backends.failback_after_seconds = 0.1") as stage:
        for _ in range(2):
            for ill, well in ((stage.primary, "standby"), (stage.standby, "primary")):
                ill.faults.die(reset=True)
                serves = f'{{backend="{well}", {{{{instance}}}}}} == 1'
                await stage.sees("ai_ticket_kobold_backend_active" + serves)
                ill.faults.clear()
                await all_usable(stage)
        await stage.alert_begins("AiTicketFlapping")

        await stage.run("ai-ticketctl backends")
        await stage.run("ai-ticketctl failover standby")
        before = len(stage.logged("failback"))
        for usable in (False, True):
            (stage.primary.faults.clear if usable else stage.primary.faults.die)()
            await stage.until(lambda s, u=usable: s["backends"][0]["usable"] is u)  # type: ignore[misc]
            assert (await stage.post()).json()["backend"] == "standby"

        assert "standby is pinned" in await stage.run("ai-ticketctl status")
        assert len(stage.logged("failback")) == before
        await stage.run("ai-ticketctl auto")
        await stage.run("ai-ticketctl failback")
        assert (await stage.post()).json()["backend"] == "primary"


async def test_a_backend_that_fails_and_breaks_off_is_restarted(rehearse: Rehearse) -> None:
    settings = ("pipeline.max_attempts = 1", "backends.fall = 100")
    async with rehearse("AiTicketBackendErrors", *settings) as stage:
        stage.primary.faults.script("server_error", times=5)
        for _ in range(5):
            assert (await stage.post()).json()["error"] == "api_server_error"
        stage.primary.faults.cut_stream(after_events=1, reset=True)
        assert "api_connection_error" in (await stage.post(max_tokens=12, stream=True)).text
        await stage.alert_begins("AiTicketBackendErrors")

        await stage.run("ai-ticketctl backends")
        await stage.run("ai-ticketctl failover standby")
        assert (await stage.post()).json()["backend"] == "standby"
        stage.primary.faults.clear()
        stage.primary.faults.restart()
        await all_usable(stage)
        await stage.run("ai-ticketctl auto")
        await stage.run("ai-ticketctl failback")

        assert '"backend":"primary"' in (await stage.post(max_tokens=12, stream=True)).text
        assert "ready" in await stage.run("ai-ticketctl backends")
        failures = await stage.run(FAILURES)
        assert 'backend="primary",error="api_server_error"} 5.0' in failures
        assert 'backend="primary",error="api_connection_error"} 1.0' in failures


async def test_slow_batches_go_to_the_server_that_is_quick(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketBatchesSlow") as stage:
        batch = [{"content": f"Ticket {number}", "max_tokens": 4} for number in range(3)]
        stage.primary.faults.slow_down(tokens_per_second=8)
        assert (await stage.client.post("/events", json=batch)).is_success
        await stage.alert_begins("AiTicketBatchesSlow")

        assert re.search("status +healthy", await stage.run("ai-ticketctl status"))
        await stage.run(
            "curl -s http://localhost:9464/metrics"
            " | grep ^ai_ticket_kobold_request_duration_seconds_sum"
        )
        await stage.run("ai-ticketctl failover standby")
        answers = (await stage.client.post("/events", json=batch)).json()
        assert {answer["backend"] for answer in answers} == {"standby"}
        assert re.search(r"verdict +met", await stage.run(LOAD_TEST))
        await stage.run("ai-ticketctl auto")


async def test_failures_that_rise_are_explained_and_done_again(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketServerFailuresRising", "backends.fall = 100") as stage:
        assert (await stage.post()).is_success
        for server in (stage.primary, stage.standby):
            server.faults.script("server_error")
        failed = [(await stage.post()).json() for _ in range(4)]
        assert {one["error"] for one in failed} == {"api_server_error"}
        await stage.alert_begins("AiTicketServerFailuresRising")

        event_id = failed[0]["event_id"]
        listed = await stage.run("ai-ticketctl events list --state failed,expired --newer-than 15m")
        assert event_id in listed
        assert "api_server_error" in listed
        life = await stage.run("ai-ticketctl why EVENT", EVENT=event_id)
        assert "failed after" in life
        for server in (stage.primary, stage.standby):
            server.faults.clear()
        await stage.until(lambda s: s["backends"][0]["usable"])
        assert re.search(r"found +4", await stage.run("ai-ticketctl events retry --newer-than 1h"))
        await stage.run("ai-ticketctl events retry --newer-than 1h --yes")

        await stage.succeeded(5)
        left = await stage.run("ai-ticketctl events list --state failed --newer-than 1h")
        assert event_id not in left


async def test_many_failures_are_held_back_moved_and_done_again(rehearse: Rehearse) -> None:
    async with rehearse(
        "AiTicketServerFailuresMany",
        "pipeline.max_attempts = 1",
        "backends.fall = 100",
        kobold=QUICK.instant(),
    ) as stage:
        stage.primary.faults.script("server_error")
        for _ in range(51):
            assert (await stage.post()).json()["error"] == "api_server_error"
        await stage.alert_begins("AiTicketServerFailuresMany")

        assert "primary" in await stage.run("ai-ticketctl backends")
        listed = await stage.run(
            "ai-ticketctl events list --state failed --newer-than 5m --limit 10"
        )
        assert listed.count("api_server_error") == 10
        await stage.run("ai-ticketctl failover standby")
        await stage.run("ai-ticketctl pause")
        (held,) = await stage.leave()
        assert (await stage.ask("events", "show", held))["state"] == "queued"
        await stage.run("ai-ticketctl unpause")

        await stage.run('ai-ticketctl submit "Hello" --max-tokens 4')
        await stage.run("ai-ticketctl events retry --newer-than 1h --yes")
        await stage.succeeded(53)
        stage.primary.faults.clear()
        await stage.run("ai-ticketctl auto")
        assert (await stage.ask("status"))["serving"]["pinned"] is None
