"""Servers whose model comes and goes: unloaded when idle, reloaded, loaded for a request."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.config.backends import BackendRole, Dialect, ServerConfig
from ai_ticket_daemon.config.values.secret import Secret
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, SimulatedKobold, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GUARD_SECONDS = 60
PLAIN = replace(KoboldSettings(version="1.115").scaled(0.05), tokens_per_second=500, overtake=False)
ROUTER = replace(PLAIN, router=True)
ADMIN = replace(PLAIN, admin=True)
EVENT: dict[str, Any] = {
    "content": "Classify this ticket, please.",
    "max_tokens": 20,
    "timeout_seconds": 50,
}


async def until(condition: Callable[[], object]) -> None:
    while True:
        if condition():
            return
        await trio.sleep(0.01)


@dataclass(slots=True)
class House:
    """A daemon in front of one or two servers."""

    primary: SimulatedKobold
    standby: SimulatedKobold
    daemon: RunningDaemon
    client: httpx.AsyncClient

    async def ask(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.post("/event", json=EVENT)).json()
        return answer

    def state(self, name: str) -> str:
        return self.daemon.daemon.pool[name].health.state.value

    async def until(self, name: str, state: str) -> None:
        await until(lambda: self.state(name) == state)

    @property
    def text(self) -> str:
        return self.primary.expected_completion(EVENT["content"], max_tokens=20)


@asynccontextmanager
async def open_house(
    settings: KoboldSettings, password: str | None = None, **rules: Any
) -> AsyncIterator[House]:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(settings) as one, open_simulated_kobold(settings) as two:
            secret = None if password is None else Secret(password)
            config = config_for(
                ServerConfig(name="primary", url=one.url, password=secret),
                ServerConfig(
                    name="standby", url=two.url, role=BackendRole.STANDBY, password=secret
                ),
            )
            config = replace(config, backends=replace(config.backends, **rules))
            async with (
                open_daemon(config) as daemon,
                httpx.AsyncClient(base_url=daemon.url, timeout=GUARD_SECONDS) as client,
            ):
                yield House(one, two, daemon, client)


async def test_an_unloaded_primary_is_used_and_loads_its_model_for_the_request() -> None:
    async with open_house(ROUTER, failback_after_seconds=0) as house:
        house.primary.faults.unload()
        await house.until("primary", "unloaded")
        await until(lambda: house.daemon.daemon.pool.active.role is BackendRole.PRIMARY)
        answer = await house.ask()
        assert (answer["completion"], answer["backend"]) == (house.text, "primary")
        await house.until("primary", "ready")
        assert house.daemon.log("backend_state")


async def test_a_primary_whose_model_comes_and_goes_goes_on_serving() -> None:
    async with open_house(replace(ROUTER, load_seconds=0.2), failback_after_seconds=0) as house:
        for _ in range(3):
            house.primary.faults.unload()
            await house.until("primary", "reloading")
            await house.until("primary", "unloaded")
            answer = await house.ask()
            assert (answer["completion"], answer["backend"]) == (house.text, "primary")
        assert house.daemon.log("failover") == []
        assert house.daemon.log("backend_restarted") == []
        assert house.daemon.log("backend_unusable") == []
        assert house.daemon.daemon.pool.active.relapses == 0


async def test_a_primary_that_has_unloaded_unseen_loads_its_model_for_the_same_attempt() -> None:
    # Between two looks at its model: the daemon still takes it for loaded.
    async with open_house(replace(ROUTER, load_seconds=0), probe_interval_seconds=3600) as house:
        house.primary.faults.unload()
        await house.primary.wait_for(SimulatedKobold.is_back)
        answer = await house.ask()
        assert (answer["completion"], answer["backend"]) == (house.text, "primary")
        assert answer["attempts"] == 1


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions", "kobold"])
async def test_what_a_loaded_model_is_is_known_before_it_is_asked(
    dialect: str,
) -> None:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(ROUTER) as simulated:
            config = ServerConfig(
                name="p",
                url=simulated.url,
                dialect=Dialect(dialect),
            )
            client = open_client(config, stall_seconds=lambda: 60.0, on_abort=lambda *_: None)
            await client.probe(identify=True)
            simulated.faults.unload()
            await simulated.wait_for(SimulatedKobold.is_back)
            assert (await client.probe(identify=True)).loads_on_request
            question = Message(Role.USER, "Name three colours.")
            request = GenerationRequest((question,), Sampling(max_tokens=20))
            result = await client.generate(request)
            text = simulated.expected_completion("Name three colours.", max_tokens=20)
            # Also a dialect that takes a text has the template of the model by then.
            assert result.text == text


async def test_a_router_that_cannot_load_its_model_has_none() -> None:
    async with open_house(ROUTER, failback_after_seconds=0) as house:
        for server in (house.primary, house.standby):
            server.faults.unload()
            server.faults.lose_model()
        await house.until("primary", "unloaded")
        answer = await house.ask()
        assert answer["error"] == "api_server_error", answer
        assert "no model" in answer["message"]


async def test_a_router_that_cannot_load_its_model_is_not_told_to_again_and_again() -> None:
    async with open_house(ROUTER, keep_standby_loaded=True) as house:
        house.standby.faults.unload()
        house.standby.faults.lose_model()
        await until(lambda: house.daemon.log("backend_not_woken"))
        (line,) = house.daemon.log("backend_not_woken")
        assert "no model" in line["reason"]
        assert house.daemon.log("backend_woken") == []
        backend = house.daemon.daemon.pool["standby"]
        assert backend.waking.again_at > trio.current_time()


@pytest.mark.parametrize("settings", [ROUTER, ADMIN], ids=["router", "admin"])
async def test_a_generation_cut_by_a_reload_is_not_poison_however_often(
    settings: KoboldSettings,
) -> None:
    async with open_house(replace(settings, tokens_per_second=100)) as house:
        async with trio.open_nursery() as nursery:
            answers: list[dict[str, Any]] = []

            async def ask() -> None:
                answers.append(await house.ask())

            nursery.start_soon(ask)
            for server in (house.primary, house.standby):
                await server.wait_for(lambda s: s.tokens_written > 0)
                server.faults.reload()
        (answer,) = answers
        assert answer["completion"] == house.text, answer
        assert answer["attempts"] == 3


async def test_a_wrong_password_is_unauthorised_and_no_model_behind_one_is_not() -> None:
    async with open_house(replace(PLAIN, password="right"), "wrong") as house:
        await house.until("primary", "unauthorised")
        assert house.daemon.log("backend_credential_refused")
    async with open_house(replace(PLAIN, password="right"), "right") as house:
        house.primary.faults.lose_model()
        await house.until("primary", "wrong_model")
        assert "no model" in house.daemon.daemon.pool["primary"].health.reason
        assert not house.daemon.log("backend_credential_refused")


async def test_an_operator_can_have_a_model_loaded() -> None:
    async with open_house(replace(ADMIN, load_seconds=0.1)) as house:
        house.standby.faults.unload()
        await house.until("standby", "wrong_model")
        pool = house.daemon.daemon.pool
        assert "`ai-ticketctl wake` does" in pool["standby"].health.reason
        pool.wake("standby")
        await house.until("standby", "ready")
        assert house.daemon.log("backend_woken")


async def test_a_server_whose_model_is_loaded_is_not_made_to_load_it_again() -> None:
    async with open_house(ADMIN) as house:
        backend = house.daemon.daemon.pool["primary"]
        house.daemon.daemon.pool.wake("primary")
        await until(lambda: not backend.waking.ordered)
        answer = await house.ask()
        assert (answer["completion"], answer["attempts"]) == (house.text, 1)
        assert not house.daemon.log("backend_woken")
        assert not house.daemon.log("backend_not_woken")


async def test_a_standby_is_kept_loaded_ahead_of_need_if_that_is_wanted() -> None:
    async with open_house(ROUTER, keep_standby_loaded=True) as house:
        house.standby.faults.unload()
        await until(lambda: house.daemon.log("backend_woken"))
        await house.until("standby", "ready")
        assert house.standby.log[-1].tokens == 1
        assert Feature.ROUTER in house.daemon.daemon.pool["standby"].health.software.features


async def test_a_server_that_cannot_load_a_model_is_said_to_be_not_woken() -> None:
    async with open_house(PLAIN) as house:
        house.standby.faults.lose_model()
        await house.until("standby", "wrong_model")
        house.daemon.daemon.pool.wake("standby")
        await until(lambda: house.daemon.log("backend_not_woken"))
