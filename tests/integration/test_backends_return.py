"""Servers that come back, help out, or are taken out by a reload, over real sockets."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from ai_ticket_daemon.backends.kobold import guard
from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.lacks import until

FAST = replace(
    KoboldSettings(), tokens_per_second=2000, prompt_seconds=0.002, answer_hold_seconds=0.002
)
SLOW = replace(KoboldSettings().scaled(0.1), tokens_per_second=20, prompt_seconds=0.05)
LONG: dict[str, Any] = {"content": "long", "max_tokens": 20}
PATIENCE_SECONDS = 300
"""For five hundred events on a machine that is busy with others."""


async def state_of(client: httpx.AsyncClient, name: str) -> str:
    report = (await client.get("/health")).json()
    return next((str(b["state"]) for b in report["backends"] if b["name"] == name), "none")


async def until_state(client: httpx.AsyncClient, name: str, state: str) -> None:
    with trio.fail_after(60):
        while True:
            if await state_of(client, name) == state:
                return
            await trio.sleep(0.01)


async def test_five_hundred_waiting_events_start_when_the_server_returns_one_at_a_time() -> None:
    limits = httpx.Limits(max_connections=600, max_keepalive_connections=0)
    async with open_simulated_kobold(FAST) as simulated:
        config = config_for(ServerConfig(name="primary", url=simulated.url))
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(
                base_url=daemon.url, timeout=PATIENCE_SECONDS, limits=limits
            ) as client,
            trio.open_nursery() as nursery,
        ):
            simulated.faults.stall(after_tokens=0)
            answers: list[int] = []

            async def post(number: int) -> None:
                body = {
                    "content": f"ticket {number}",
                    "max_tokens": 2,
                    "timeout_seconds": PATIENCE_SECONDS,
                }
                answers.append((await client.post("/event", json=body)).status_code)

            for number in range(500):
                nursery.start_soon(post, number)
            with trio.fail_after(PATIENCE_SECONDS):
                while True:
                    if (await client.get("/health")).json()["queue"].get("queued") == 499:
                        break
                    await trio.sleep(0.05)
            simulated.faults.die()
            await until_state(client, "primary", "down")
            asked = len(simulated.log)
            simulated.faults.clear()
            # An event that nobody woke would begin when the next one comes, and there is none.
            with trio.fail_after(60):
                await simulated.wait_for(lambda s: len(s.log) > asked)
            with trio.fail_after(PATIENCE_SECONDS):
                await simulated.wait_for(lambda s: s.observations.completed_total == 500)
        assert answers == [200] * 500
        assert simulated.observations.busy_answers_total == 0
        assert simulated.observations.max_in_flight <= 2, "one, and one that the lock holds up"


async def test_a_reload_leaves_what_runs_alone_and_probes_no_server_it_took_out() -> None:
    async with open_simulated_kobold(SLOW) as old, open_simulated_kobold(SLOW) as new:
        first = ServerConfig(name="first", url=old.url)
        config = config_for(first)
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
            trio.open_nursery() as nursery,
        ):
            answers: dict[str, str] = {}
            all_answered = trio.Event()

            async def post(content: str) -> None:
                answer = await client.post("/event", json=LONG | {"content": content})
                answers[content] = answer.json()["backend"]
                if len(answers) == 2:
                    all_answered.set()

            nursery.start_soon(post, "runs")
            await old.wait_for(lambda s: s.running)
            daemon.daemon.pool.apply([ServerConfig(name="second", url=new.url)])
            await until_state(client, "second", "ready")
            nursery.start_soon(post, "comes later")
            await new.wait_for(lambda s: s.running)
            # What may still connect to the old server is the look at the generation it runs. A
            # server that is probed sees five connections a second, and more.
            connections = old.observations.connections_total
            await trio.sleep(1)
            assert old.observations.connections_total - connections <= 2
            with trio.fail_after(60):
                await all_answered.wait()
        assert answers == {"runs": "first", "comes later": "second"}


async def test_a_reload_does_not_forget_that_a_server_is_down() -> None:
    async with open_simulated_kobold(SLOW) as primary, open_simulated_kobold(SLOW) as standby:
        servers = [
            ServerConfig(name="primary", url=primary.url),
            ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
        ]
        async with (
            open_daemon(config_for(*servers)) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            primary.faults.die()
            await until_state(client, "primary", "down")
            daemon.daemon.pool.apply([replace(s, total_timeout_seconds=500) for s in servers])
            assert await state_of(client, "primary") == "down"
            answer = (await client.post("/event", json=LONG)).json()
            assert answer["backend"] == "standby"
            assert answer["attempts"] == 1, "the primary was not even tried"


@pytest.mark.parametrize("spill", [False, True])
async def test_the_standby_helps_a_primary_that_others_keep_busy_only_if_it_may(
    spill: bool,
) -> None:
    async with open_simulated_kobold(FAST) as primary, open_simulated_kobold(FAST) as standby:
        config = config_for(
            ServerConfig(name="primary", url=primary.url),
            ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
        )
        rules = replace(config.backends, spill_to_standby=spill)
        async with (
            open_daemon(replace(config, backends=rules)) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            primary.faults.answer_busy()
            body = LONG | {"timeout_seconds": 1.5}
            answer = await client.post("/event", json=body)
            if spill:
                assert answer.json()["backend"] == "standby"
                assert daemon.log("guest_sent")[0]["cause"] == "spill"
            else:
                assert (answer.status_code, answer.json()["error"]) in {
                    (503, "api_rate_limited"),
                    (504, "deadline_exceeded"),
                }
                assert not standby.log
            assert (await client.get("/health")).json()["status"] == "healthy"
            assert not daemon.log("failover")


async def test_one_of_two_primaries_carries_on_and_the_standby_stays_out_of_it() -> None:
    async with (
        open_simulated_kobold(SLOW) as one,
        open_simulated_kobold(SLOW) as two,
        open_simulated_kobold(SLOW) as standby,
    ):
        config = config_for(
            ServerConfig(name="one", url=one.url),
            ServerConfig(name="two", url=two.url),
            ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
        )
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
            trio.open_nursery() as nursery,
        ):
            backends: list[str] = []

            async def post() -> None:
                backends.append((await client.post("/event", json=LONG)).json()["backend"])

            for _ in range(4):
                nursery.start_soon(post)
            await one.wait_for(lambda s: s.running)
            await two.wait_for(lambda s: s.running)
            one.faults.die()
            with trio.fail_after(60):
                await two.wait_for(lambda s: s.observations.completed_total == 4)
        assert backends == ["two"] * 4
        assert not standby.log
        assert not daemon.log("failover")


async def test_a_server_that_stops_after_its_prompt_is_shown_as_such_while_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "ABORT_BOUND_SECONDS", 3600)
    monkeypatch.setattr(guard, "_AT_ONCE_SECONDS", 0.05)
    async with open_simulated_kobold(SLOW) as simulated:
        # To whoever looks, the same as a prompt that is read for long.
        simulated.faults.stall(after_tokens=0, ignores_abort=True)
        config = config_for(ServerConfig(name="primary", url=simulated.url))
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            backend = daemon.daemon.pool["primary"]
            body = {"content": "a long prompt"}
            headers = {"prefer": "respond-async"}
            first = (await client.post("/event", json=body, headers=headers)).json()["event_id"]
            await simulated.wait_for(lambda s: s.running == 1)
            with trio.fail_after(60):
                assert (await client.delete(f"/event/{first}")).is_success
                await until(lambda: backend.reason == "stops after the prompt is read")
                assert backend.in_flight == 1
                simulated.faults.clear()
                assert (await client.post("/event", json={"content": "next"})).is_success
            assert backend.pause.until is None
            assert [line["reason"] for line in daemon.log("abort_after_prompt")] == ["cancelled"]


async def test_a_cancelled_event_whose_prompt_is_read_leaves_a_server_that_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "ABORT_BOUND_SECONDS", 0.05)
    reads_long = replace(SLOW, prompt_seconds=1.0)
    async with open_simulated_kobold(reads_long) as simulated:
        config = config_for(ServerConfig(name="primary", url=simulated.url))
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
            trio.open_nursery() as nursery,
        ):
            body = {"content": "a long prompt"}
            headers = {"prefer": "respond-async"}
            first = (await client.post("/event", json=body, headers=headers)).json()["event_id"]
            await simulated.wait_for(lambda s: s.running == 1)
            nursery.start_soon(partial(client.post, "/event", json={"content": "next"}))
            assert (await client.delete(f"/event/{first}")).is_success
            states = set()
            with trio.fail_after(60):
                while simulated.observations.started_total < 2:
                    states.add(await state_of(client, "primary"))
                    await trio.sleep(0.01)
            assert states <= {"ready", "busy"}
            assert [line["reason"] for line in daemon.log("abort_after_prompt")] == ["cancelled"]
            assert daemon.log("abort_without_effect") == []
