"""The whole daemon in front of simulated KoboldCPP servers, over real sockets."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, answer_mark, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ai_ticket_daemon.testing.kobold import SimulatedKobold

QUICK = KoboldSettings().scaled(0.1)
GUARD_SECONDS = 60


def server(
    simulated: SimulatedKobold, name: str = "primary", role: BackendRole = BackendRole.PRIMARY
) -> ServerConfig:
    return ServerConfig(name=name, url=simulated.url, role=role)


@asynccontextmanager
async def one_backend(
    settings: KoboldSettings = QUICK,
) -> AsyncIterator[tuple[RunningDaemon, SimulatedKobold, httpx.AsyncClient]]:
    async with (
        open_simulated_kobold(settings) as simulated,
        open_daemon(config_for(server(simulated))) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
    ):
        yield daemon, simulated, client


@asynccontextmanager
async def primary_and_standby() -> AsyncIterator[
    tuple[SimulatedKobold, SimulatedKobold, RunningDaemon, httpx.AsyncClient]
]:
    async with (
        open_simulated_kobold(QUICK) as primary,
        open_simulated_kobold(QUICK) as standby,
        open_daemon(
            config_for(server(primary), server(standby, "standby", BackendRole.STANDBY))
        ) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
    ):
        yield primary, standby, daemon, client


def frames(text: str) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix("data: "))
        for line in text.splitlines()
        if line.startswith("data: ")
    ]


async def until(client: httpx.AsyncClient, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask /health until it meets a condition, and return it."""
    with trio.fail_after(60):
        while True:
            report: dict[str, Any] = (await client.get("/health")).json()
            if met(report):
                return report
            await trio.sleep(0.02)


async def test_an_event_goes_in_and_its_completion_comes_out() -> None:
    async with one_backend() as (_, simulated, client):
        answer = await client.post(
            "/event", json={"content": "My printer burns.", "max_tokens": 8, "metadata": {"n": 1}}
        )
    body = answer.json()
    assert answer.status_code == 200, body
    assert body["completion"].startswith(answer_mark("My printer burns."))
    assert body["backend"] == "primary"
    assert body["attempts"] == 1
    assert body["metadata"] == {"n": 1}
    assert body["usage"]["completion_tokens"] > 0
    (record,) = simulated.log
    assert record.genkey


async def test_a_stream_brings_the_completion_piece_by_piece() -> None:
    async with one_backend() as (_, simulated, client):
        answer = await client.post(
            "/event", json={"content": "Tell me.", "max_tokens": 40, "stream": True}
        )
        deltas = frames(answer.text)
        assert deltas[-1]["done"] is True
        assert deltas[-1]["backend"] == "primary"
        text = "".join(frame["delta"] for frame in deltas)
        assert text == simulated.expected_completion("Tell me.", max_tokens=40)
        assert len(deltas) > 3


async def test_five_hundred_clients_on_one_slot_are_answered_in_order_of_arrival() -> None:
    # Five times as fast as the recorded server, with the same proportions.
    settings = replace(
        KoboldSettings(), tokens_per_second=400, prompt_seconds=0.005, answer_hold_seconds=0.015
    )
    answers: list[int] = []
    async with one_backend(settings) as (daemon, simulated, _):
        limits = httpx.Limits(max_connections=600, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(base_url=daemon.url, timeout=120, limits=limits) as client,
            trio.open_nursery() as nursery,
        ):

            async def post(number: int, accepted: trio.Event) -> None:
                text = f"ticket {number}"

                async def sent(name: str, _info: object) -> None:
                    if name == "http11.send_request_body.complete":
                        accepted.set()

                answer = await client.post(
                    "/event", json={"content": text, "max_tokens": 4}, extensions={"trace": sent}
                )
                assert answer.status_code == 200, answer.text
                assert answer.json()["completion"].startswith(answer_mark(text))
                answers.append(number)

            for number in range(500):
                accepted = trio.Event()
                nursery.start_soon(post, number, accepted)
                await accepted.wait()
    assert answers == list(range(500))
    assert simulated.observations.busy_answers_total == 0
    # A request may wait out the moment for which KoboldCPP keeps its lock after an answer.
    assert simulated.observations.max_waiting <= 1
    log = list(simulated.log)
    assert len(log) == 500
    first, last = log[0].started, log[-1].ended
    assert first is not None
    assert last is not None
    # Only that it does not stand idle: a wait for the next probe (0.2 s) after each event would
    # make it 0.85. How much is used on a machine that does nothing else, tests/benchmarks measures.
    assert 1 - simulated.observations.held_seconds / (last - first) < 0.6


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_slot_at_once(stream: bool) -> None:
    async with one_backend(replace(QUICK, tokens_per_second=10)) as (daemon, simulated, client):
        body = {"content": "Write a long story.", "max_tokens": 200, "stream": stream}
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                with trio.CancelScope() as scope:
                    nursery.start_soon(hang_up, scope)
                    await client.post("/event", json=body)

            async def hang_up(scope: trio.CancelScope) -> None:
                await simulated.wait_for(lambda s: s.tokens_written >= 1)
                scope.cancel()

            nursery.start_soon(leave)
        with trio.fail_after(GUARD_SECONDS):
            await simulated.wait_for(lambda s: s.running == 0)
        assert simulated.observations.aborted_total == 1
        answer = await client.post("/event", json={"content": "next", "max_tokens": 2})
        assert answer.status_code == 200
        assert [line["state"] for line in daemon.log("event_ended")] == ["cancelled", "succeeded"]


async def test_the_standby_takes_over_and_the_primary_comes_back() -> None:
    async with primary_and_standby() as (primary, _, daemon, client):
        assert (await client.get("/health")).json()["status"] == "healthy"
        primary.faults.die()
        answer = await client.post("/event", json={"content": "still there?", "max_tokens": 4})
        assert answer.json()["backend"] == "standby"
        report = (await client.get("/health")).json()
        assert report["status"] == "degraded"
        assert any("standby" in reason for reason in report["reasons"])
        assert [line["role"] for line in daemon.log("failover")] == ["standby"]


async def test_without_any_backend_the_daemon_says_so_and_recovers_by_itself() -> None:
    async with one_backend() as (_, simulated, client):
        simulated.faults.die()
        report = await until(client, lambda report: report["status"] == "unhealthy")
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/live")).status_code == 200
        assert any("primary is down" in reason for reason in report["reasons"])
        answer = await client.post("/event", json={"content": "hello"})
        assert answer.status_code == 503
        assert answer.json()["error"] == "no_backend_available"
        assert int(answer.headers["retry-after"]) >= 1
        simulated.faults.start_again()
        await until(client, lambda report: report["status"] == "healthy")
        assert (await client.post("/event", json={"content": "hello"})).status_code == 200


async def test_the_failure_of_the_backend_is_told_precisely() -> None:
    async with one_backend() as (_, simulated, client):
        simulated.faults.script("server_error")
        answer = await client.post("/event", json={"content": "hello"})
        body = answer.json()
        assert answer.status_code == 502
        assert set(body) == {"error", "message", "details", "event_id", "trace_id"}
        assert body["event_id"]


async def test_an_address_in_the_payload_is_never_followed() -> None:
    async with (
        open_simulated_kobold(QUICK) as trap,
        one_backend() as (_, _simulated, client),
    ):
        body = {
            "content": {"prompt": "hello", "kobold_url": trap.url, "url": trap.url},
            "kobold_url": trap.url,
            "backend": trap.url,
            "callback": trap.url,
            "metadata": {"url": trap.url},
            "max_tokens": 2,
        }
        assert (await client.post("/event", json=body)).status_code == 200
        assert trap.observations.connections_total == 0


async def test_a_stop_lets_what_clients_wait_for_end_first() -> None:
    async with one_backend(replace(QUICK, tokens_per_second=4)) as (daemon, simulated, client):
        answers: dict[str, httpx.Response] = {}

        async def post(text: str) -> None:
            answers[text] = await client.post("/event", json={"content": text, "max_tokens": 10})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, "runs")
            await simulated.wait_for(lambda s: s.running == 1)
            nursery.start_soon(post, "waits")
            await until(client, lambda report: report["queue"].get("queued") == 1)
            daemon.stop()
        with trio.fail_after(GUARD_SECONDS):
            await daemon.stopped.wait()
    assert answers["runs"].status_code == 200
    assert answers["waits"].status_code == 200


async def test_a_second_stop_does_not_wait() -> None:
    async with one_backend(replace(QUICK, tokens_per_second=1)) as (daemon, simulated, client):
        async with trio.open_nursery() as nursery:

            async def post() -> None:
                with pytest.raises(httpx.HTTPError):
                    await client.post("/event", json={"content": "long", "max_tokens": 100})

            nursery.start_soon(post)
            await simulated.wait_for(lambda s: s.running == 1)
            daemon.stop()
            daemon.stop()
            with trio.fail_after(GUARD_SECONDS):
                await daemon.stopped.wait()
        with trio.fail_after(
            GUARD_SECONDS
        ):  # the server was told; left to itself, it would run for minutes
            await simulated.wait_for(lambda s: s.running == 0)


async def test_metrics_are_served_for_prometheus() -> None:
    async with one_backend() as (daemon, _, client):
        await client.post("/event", json={"content": "hello", "max_tokens": 2})
        port = daemon.daemon.metrics_port
        page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    assert 'ai_ticket_pipeline_events_total{outcome="succeeded"} 1.0' in page
    assert 'ai_ticket_server_requests_total{method="POST",route="/event",status="200"} 1.0' in page
    assert 'ai_ticket_kobold_backend_up{backend="primary",role="primary"} 1.0' in page
