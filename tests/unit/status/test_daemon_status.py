"""How the daemon does: derived once, and shown alike by all who render it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.failure import RetryRule
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.software import Software
from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjection
from ai_ticket_daemon.config.backends import BackendsConfig
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.control.status_operations import screen_of
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
from ai_ticket_daemon.server.answers import health_object
from ai_ticket_daemon.status.daemon_status import DaemonStatus, Sources
from ai_ticket_daemon.status.line import line_of
from ai_ticket_daemon.status.snapshot import HealthStatus, RefusedClient, Snapshot
from ai_ticket_daemon.testing.clock import clock_of
from tests.support.pipeline_house import PRIMARY, STANDBY, event, failure, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.support.pipeline_house import House

SERVERS = (PRIMARY, STANDBY)


@dataclass
class Told:
    """What the parts tell that have nothing to do with events."""

    house: House
    status: DaemonStatus
    exhaustion: Exhaustion
    problems: list[str] = field(default_factory=list)
    missing: str | None = None


@asynccontextmanager
async def watched() -> AsyncIterator[Told]:
    async with running(servers=SERVERS) as house:
        config, exhaustion = Config(backends=BackendsConfig(servers=SERVERS)), Exhaustion()
        told: Told
        status = DaemonStatus(
            Sources(
                pool=house.pool,
                pipeline=house.pipeline,
                store=house.store,
                fault_injection=FaultInjection(others_usable=lambda _: True, on_end=lambda _: None),
                exhaustion=exhaustion,
                clock=clock_of(trio.current_time),
                config=lambda: config,
                missing_pin=lambda: told.missing,
                addresses=lambda: ("http://127.0.0.1:5000",),
                warnings=lambda: ["a warning"],
                reload_problems=lambda: tuple(told.problems),
                refused_clients=lambda: [
                    RefusedClient(client="c", number=2, error="forbidden", last_at=7.0)
                ],
                log_level=lambda: "info",
                capture_payloads=lambda: 3,
            )
        )
        status.started = True
        told = Told(house, status, exhaustion)
        yield told
        house.scope.cancel()


def shown(snapshot: Snapshot) -> tuple[object, object, str]:
    """Return the reasons as /health and ai-ticketctl show them, and systemd's line."""
    return health_object(snapshot).reasons, screen_of(snapshot)["reasons"], line_of(snapshot)


async def test_a_daemon_that_is_well_says_so_everywhere(autojump_clock: MockClock) -> None:
    async with watched() as told:
        snapshot = await told.status.look()
    assert (snapshot.status, snapshot.ready, snapshot.reasons) == (HealthStatus.HEALTHY, True, ())
    assert line_of(snapshot) == "healthy; served by primary; 0 queued, 0 running; 0 events/s"
    assert health_object(snapshot).status == screen_of(snapshot)["status"] == "healthy"


async def test_it_is_not_ready_before_it_has_started(autojump_clock: MockClock) -> None:
    async with watched() as told:
        told.status.started = False
        snapshot = told.status.snapshot()
    assert (snapshot.ready, snapshot.reasons) == (False, ("starting",))


@pytest.mark.parametrize(
    ("trouble", "status", "ready"),
    [
        ("host", HealthStatus.HEALTHY, True),
        ("paused", HealthStatus.DEGRADED, True),
        ("draining", HealthStatus.DEGRADED, False),
        ("pinned", HealthStatus.DEGRADED, True),
        ("missing", HealthStatus.HEALTHY, True),
        ("down", HealthStatus.DEGRADED, True),
    ],
)
async def test_every_reason_is_the_same_wherever_it_is_shown(
    trouble: str, status: HealthStatus, ready: bool, autojump_clock: MockClock
) -> None:
    async with watched() as told:
        match trouble:
            case "host":
                told.exhaustion.met(Resource.DESCRIPTORS, "control")
            case "paused":
                told.house.pipeline.pause("paused by an operator")
            case "draining":
                told.house.pipeline.refuse_new("draining by an operator")
            case "pinned":
                told.house.pool.pin("standby")
            case "missing":
                told.missing = "elsewhere"
            case "down":
                told.house.primary.probe_error = failure()
                await trio.sleep(60)
        snapshot = await told.status.look()
    assert (snapshot.status, snapshot.ready) == (status, ready)
    assert snapshot.reasons
    in_health, in_ctl, line = shown(snapshot)
    assert in_health == snapshot.reasons
    assert in_ctl == list(snapshot.reasons)
    assert f": {snapshot.reasons[0]};" in line


async def test_what_the_pipeline_did_is_counted_by_itself(autojump_clock: MockClock) -> None:
    async with watched() as told:
        await told.status.look()
        told.house.primary.answers = [None, failure(retry=RetryRule.FINAL)]
        for text in ("well", "badly"):
            submission = await told.house.pipeline.submit(event(text))
            await submission.outcome()
        await trio.sleep(20 - trio.current_time())
        snapshot = await told.status.look()
    assert told.house.pipeline.counters.ended == len(told.house.ends.states) == 2
    assert snapshot.events_per_second == pytest.approx(2 / 20, rel=0.1)
    [waste] = snapshot.wasted
    assert (waste.backend, waste.cause, waste.attempts) == ("primary", "api_server_error", 1)
    assert waste.seconds == pytest.approx(told.house.ends.wasted[0].seconds, abs=1e-3)
    assert snapshot.queue.states["succeeded"] == snapshot.queue.states["failed"] == 1


async def test_what_was_counted_last_stays_while_the_store_cannot_be_read(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched() as told:
        told.house.pipeline.pause()
        await told.house.pipeline.submit(event("waits"))
        await trio.sleep(5)
        before = await told.status.look()

        async def counts() -> None:
            raise StoreUnavailable("no space left")

        monkeypatch.setattr(told.house.store, "counts", counts)
        monkeypatch.setattr(type(told.house.store), "fault", "no space left")
        with pytest.raises(StoreUnavailable):
            await told.status.look()
        snapshot = told.status.snapshot()
    assert before.queue.oldest_queued_seconds == pytest.approx(5)
    assert snapshot.queue == before.queue
    assert (snapshot.status, snapshot.ready) == (HealthStatus.UNHEALTHY, False)
    assert snapshot.reasons[0] == "the store cannot be written: no space left"
    screen = screen_of(snapshot)
    assert (screen["queue"]["queued"], screen["oldest_queued_seconds"]) == (1, None)
    assert screen["store"]["fault"] == "no space left"


async def test_a_screen_tells_what_the_parts_tell(autojump_clock: MockClock) -> None:
    async with watched() as told:
        told.problems = ["x.conf:3: wrong", "x.conf:4: too"]
        snapshot = told.status.snapshot()
    screen = screen_of(snapshot)
    assert screen["reload"] == {"refused": ["x.conf:3: wrong", "x.conf:4: too"]}
    assert line_of(snapshot).endswith("LAST RELOAD REFUSED: x.conf:3: wrong")
    assert screen["warnings"] == ["a warning"]
    assert screen["addresses"] == ["http://127.0.0.1:5000"]
    assert screen["capture_payloads"] == 3
    [refused] = screen["refused_clients"]
    assert refused == {"client": "c", "number": 2, "error": "forbidden", "last_at": 7.0}
    assert [backend["name"] for backend in screen["backends"]] == ["primary", "standby"]


async def test_health_tells_the_events_of_the_same_moment_as_the_servers(
    autojump_clock: MockClock,
) -> None:
    async with watched() as told:
        assert (await told.status.recent()).queue.states.get("queued", 0) == 0
        await told.house.store.submit([event()])
        await trio.sleep(0.2)
        assert health_object(await told.status.recent()).queue["queued"] == 1


@pytest.mark.parametrize("trouble", ["slow", "failed"])
async def test_health_is_told_also_while_the_store_cannot_be_read(
    trouble: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counts() -> None:
        if trouble == "slow":
            await trio.sleep_forever()
        raise StoreUnavailable("no disk")

    async with watched() as told:
        before = await told.status.look()
        monkeypatch.setattr(told.house.store, "counts", counts)
        await trio.sleep(1)
        asked_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(told.status.recent)
        assert (await told.status.recent()).queue == before.queue
        assert trio.current_time() - asked_at <= 1.0


async def test_a_kobold_that_is_taken_for_another_server_is_told_with_the_cure(
    autojump_clock: MockClock,
) -> None:
    async with watched() as told:
        assert not any("kind" in warning for warning in told.status.snapshot().warnings)
        backend = next(iter(told.house.pool))
        software = Software(better_kind="koboldcpp")
        told.house.pool.probed(backend, ProbeResult("fake", software=software))
        (warning,) = [w for w in told.status.snapshot().warnings if backend.name in w]
    assert 'set `kind = "koboldcpp"`' in warning
