"""Looks at servers, and having them load their models; on fake clients and their own clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.observation import Observation, Seen
from ai_ticket_daemon.backends.software import Software
from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, ServerConfig
from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
from ai_ticket_daemon.pool import prober
from ai_ticket_daemon.pool.backend import Backend, PoolObserver
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

P = ServerConfig(name="p", url="http://127.0.0.1:1", load_timeout_seconds=60)
S = replace(P, name="s", url="http://127.0.0.1:2", role=BackendRole.STANDBY)
ROUTER = Software("1.115", ("admin", "router"))
ADMIN = Software("1.115", ("admin",))
WELL = ProbeResult("m", busy=False)
UNLOADED = ProbeResult(None, has_model=False, loads_on_request=True, software=ROUTER)
LOST_ITS_MODEL = ProbeResult(None, has_model=False, software=ADMIN, uptime_seconds=50)


@dataclass(slots=True, eq=False)
class Client(FakeClient):
    """Counts looks, which take ``look_seconds``; to load its model takes ``wake_seconds``."""

    looks: int = 0
    look_seconds: float = 0.0
    wake_seconds: float = 0.0

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        self.looks += 1
        await trio.sleep(self.look_seconds)
        return await FakeClient.probe(self, identify=identify)

    async def wake(self) -> bool:
        await trio.sleep(self.wake_seconds)
        return await FakeClient.wake(self)


@dataclass
class Witness(PoolObserver):
    told: list[str] = field(default_factory=list)

    def probe_crashed(self, backend: Backend, error: Exception) -> None:
        self.told.append(f"{backend.name}: {error!r}")

    def woken(self, backend: Backend, problem: str | None) -> None:
        self.told.append(f"{backend.name}: {problem or 'woken'}")


@dataclass
class House:
    pool: BackendPool
    clients: dict[str, Client]
    witness: Witness
    lacks: list[Resource]

    def state(self, name: str) -> HealthState:
        return self.pool[name].health.state


@asynccontextmanager
async def probed(*results: ProbeResult, keep: bool = False) -> AsyncIterator[House]:
    """A primary and a standby, which answer with ``results``, and a prober that looks at them."""
    servers = (P, S)
    rules = BackendsConfig(servers=servers, keep_standby_loaded=keep)
    clients = {
        server.name: Client(server, probe_result=result)
        for server, result in zip(servers, results or (WELL, WELL), strict=True)
    }
    witness = Witness()
    pool = BackendPool(
        lambda: rules, open_client=lambda server: clients[server.name], observer=witness
    )
    lacks: list[Resource] = []
    exhaustion = Exhaustion(count=lacks.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: prober.run(
                pool=pool,
                settings=lambda: rules,
                exhaustion=exhaustion,
                task_status=task_status,
            )
        )
        yield House(pool, clients, witness, lacks)
        nursery.cancel_scope.cancel()


async def test_a_fault_in_one_look_is_a_failed_look_of_that_server_and_told_once(
    autojump_clock: MockClock,
) -> None:
    async with probed() as house:
        one, other = house.clients["p"], house.clients["s"]
        one.probe_error = KeyError("a fault of ours")
        await trio.sleep(20)
        assert house.state("p") is HealthState.DOWN
        assert "KeyError" in house.pool["p"].health.reason
        assert house.state("s") is HealthState.READY
        assert other.looks > 8
        assert house.witness.told == ["p: KeyError('a fault of ours')"]
        one.probe_error = None
        await trio.sleep(5)
        assert house.state("p") is HealthState.READY
        one.probe_error = KeyError("again")
        await trio.sleep(5)
        assert house.witness.told[1:] == ["p: KeyError('again')"]


async def test_a_fault_in_the_first_look_does_not_keep_the_daemon_from_starting(
    autojump_clock: MockClock,
) -> None:
    rules = BackendsConfig(servers=(P,))
    client = Client(P, probe_error=RuntimeError("a fault of ours"))
    pool = BackendPool(lambda: rules, open_client=lambda _: client, observer=PoolObserver())
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: prober.run(
                pool=pool, settings=lambda: rules, task_status=task_status
            )
        )
        assert pool["p"].health.state is HealthState.DOWN
        nursery.cancel_scope.cancel()


async def test_what_the_host_lacked_for_a_look_says_nothing_of_the_server(
    autojump_clock: MockClock,
) -> None:
    async with probed() as house:
        house.clients["p"].probe_error = MemoryError()
        await trio.sleep(20)
        assert house.state("p") is HealthState.READY
        assert house.witness.told == []
        assert set(house.lacks) == {Resource.MEMORY}


async def test_a_server_that_does_not_get_its_model_loaded_is_looked_at_meanwhile(
    autojump_clock: MockClock,
) -> None:
    async with probed(WELL, UNLOADED) as house:
        client = house.clients["s"]
        client.wake_seconds = 3600
        house.pool.wake("s")
        await trio.sleep(1)
        looks = client.looks
        house.pool.wake("s")  # One that is being loaded is not told again.
        await trio.sleep(50)
        assert client.looks > looks + 20
        assert house.witness.told == []
        await trio.sleep(20)
        assert house.witness.told == ["s: not loaded within 60 s"]
        client.wake_seconds, client.probe_result = 0, WELL
        house.pool.wake("s")
        await trio.sleep(0.01)
        assert house.state("s") is HealthState.READY, "looked at as soon as that is over"


async def test_a_server_with_another_setting_gets_nothing_before_it_was_looked_at_with_it(
    autojump_clock: MockClock,
) -> None:
    async with probed() as house:
        before = house.pool.acquire()
        assert before is not None
        before.release()
        await trio.sleep(0.5)
        house.clients["p"] = client = Client(P, look_seconds=1.0)
        house.pool.apply([replace(P, max_in_flight=2), S])
        assert house.pool.usable
        assert house.pool.acquire() is None, "how to ask it is not known yet"
        seen = house.pool.changed.version
        await house.pool.changed.wait(seen)
        assert client.looks == 1
        slot = house.pool.acquire()
        assert slot is not None
        assert slot.client is client


async def test_nobody_is_told_to_load_a_model_after_a_reload_took_the_server_out(
    autojump_clock: MockClock,
) -> None:
    async with probed(WELL, UNLOADED) as house:
        client = house.clients["s"]
        client.wake_seconds = 30
        house.pool.wake("s")
        await wait_all_tasks_blocked()
        house.pool.apply([P])
        await trio.sleep(100)
        assert (client.wakes, house.witness.told) == (0, [])


async def test_a_fault_in_loading_is_told_and_not_repeated_at_once(
    autojump_clock: MockClock,
) -> None:
    async with probed(WELL, UNLOADED, keep=True) as house:
        house.clients["s"].wake_error = KeyError("a fault of ours")
        await trio.sleep(50)
        assert house.clients["s"].wakes == 1
        crash, outcome = house.witness.told
        assert crash == "s: KeyError('a fault of ours')"
        assert "fault of the daemon" in outcome
        assert house.state("s") is HealthState.UNLOADED
        await trio.sleep(50)
        assert house.clients["s"].wakes == 2


async def test_a_standby_that_only_an_order_loads_is_kept_loaded_too(
    autojump_clock: MockClock,
) -> None:
    async with probed(WELL, LOST_ITS_MODEL, keep=True) as house:
        client = house.clients["s"]
        await trio.sleep(1)
        assert house.state("s") is HealthState.LOADING
        # It goes on without a model for a moment, then its port is closed for long.
        await trio.sleep(2)
        client.probe_error = classify("s", Observation(Seen.UNREACHABLE))
        await trio.sleep(20)
        assert (house.state("s"), client.wakes) == (HealthState.LOADING, 1)
        client.probe_error, client.probe_result = None, replace(WELL, uptime_seconds=1)
        await trio.sleep(2)
        assert house.state("s") is HealthState.READY
        client.probe_result = LOST_ITS_MODEL
        await trio.sleep(3)
        assert (house.state("s"), client.wakes) == (HealthState.LOADING, 2), "it could load it"


async def test_a_server_that_comes_back_without_the_model_it_was_to_load_has_none(
    autojump_clock: MockClock,
) -> None:
    async with probed(WELL, LOST_ITS_MODEL, keep=True) as house:
        await trio.sleep(1)
        assert house.state("s") is HealthState.LOADING
        house.clients["s"].probe_result = replace(LOST_ITS_MODEL, uptime_seconds=1)
        await trio.sleep(1)
        assert house.state("s") is HealthState.WRONG_MODEL
        await trio.sleep(50)
        assert house.clients["s"].wakes == 1, "it is not made to try again and again"
