"""A restart of the daemon does not forget which server to leave alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.control.orders import Name
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, SimulatedKobold, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICK = KoboldSettings().scaled(0.1)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[SimulatedKobold, SimulatedKobold]]:
    async with open_simulated_kobold(QUICK) as primary, open_simulated_kobold(QUICK) as standby:
        yield primary, standby


@asynccontextmanager
async def daemon_on(
    path: Path, primary: SimulatedKobold, standby: SimulatedKobold
) -> AsyncIterator[tuple[RunningDaemon, httpx.AsyncClient]]:
    config = config_for(
        ServerConfig(
            name="primary",
            url=primary.url,
            first_token_timeout_seconds=0.5,
            idle_timeout_seconds=0.5,
        ),
        ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
    )
    config = replace(config, store=StoreConfig(url=f"sqlite:///{path}"))
    async with (
        open_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
    ):
        yield daemon, client
        daemon.stop()
        with trio.fail_after(60):
            await daemon.stopped.wait()


async def ask(client: httpx.AsyncClient) -> dict[str, Any]:
    body = {"content": "hello", "max_tokens": 4}
    answer: dict[str, Any] = (await client.post("/event", json=body)).json()
    return answer


async def primary_of(client: httpx.AsyncClient) -> tuple[str, list[str]]:
    report = (await client.get("/health")).json()
    return report["backends"][0]["state"], report["reasons"]


async def test_a_stuck_primary_gets_nothing_after_a_restart_until_it_gets_on(
    tmp_path: Path, servers: tuple[SimulatedKobold, SimulatedKobold]
) -> None:
    primary, standby = servers
    store = tmp_path / "events.db"
    async with daemon_on(store, primary, standby) as (_, client):
        primary.faults.stall(after_tokens=0)
        assert (await ask(client))["backend"] == "standby"
        assert (await primary_of(client))[0] == "stuck"
    asked_before = len(primary.log)
    async with daemon_on(store, primary, standby) as (_, client):
        state, reasons = await primary_of(client)
        assert state == "stuck"
        assert any("before the restart of the daemon" in reason for reason in reasons)
        assert (await ask(client))["backend"] == "standby"
        assert len(primary.log) == asked_before
        primary.faults.clear()
        with trio.fail_after(60):
            while True:
                if (await primary_of(client))[0] == "ready":
                    break
                await trio.sleep(0.02)
        assert (await ask(client))["backend"] == "standby", "the hold-down goes on"


async def test_a_pin_outlives_the_process(
    tmp_path: Path, servers: tuple[SimulatedKobold, SimulatedKobold]
) -> None:
    store = tmp_path / "events.db"
    async with daemon_on(store, *servers) as (daemon, client):
        await daemon.daemon.orders.give(Name.PINNED, "standby", here=False)
        assert (await ask(client))["backend"] == "standby"
    async with daemon_on(store, *servers) as (daemon, client):
        assert (await ask(client))["backend"] == "standby"
        assert "the operator pinned standby" in (await primary_of(client))[1]
        await daemon.daemon.orders.give(Name.PINNED, "", here=False)
