"""What the daemon knows of its servers outlives its process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from ai_ticket_daemon.backends.failure import HealthEvent
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, ServerConfig
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.pool import persistence, prober
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.pool.health_events import GenerationFailed, ProbeNotYet
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from trio.testing import MockClock

RULES = BackendsConfig(
    servers=(
        ServerConfig(name="p", url="http://127.0.0.1:1"),
        ServerConfig(name="s", url="http://127.0.0.1:2", role=BackendRole.STANDBY),
    )
)
P, S = BackendRole.PRIMARY, BackendRole.STANDBY


class Store(MemoryStore):
    """Counts the notes, and can be out of order."""

    def __init__(self) -> None:
        super().__init__(max_queued=lambda: 10)
        self.notes: list[str] = []
        self.broken = False
        self.refuses: Exception | None = None

    async def remember(self, key: str, value: str) -> None:
        if self.refuses is not None:
            raise self.refuses
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.notes.append(value)
        await super().remember(key, value)


@dataclass
class Process:
    """A pool with its persistence, for as long as the nursery lives."""

    store: Store
    rules: BackendsConfig = RULES
    warnings: list[MutableMapping[str, Any]] = field(default_factory=list)
    pool: BackendPool = field(init=False)
    clients: dict[str, FakeClient] = field(default_factory=dict)

    async def start(self, nursery: trio.Nursery, *, wall: float = 0.0) -> None:
        def open_client(server: ServerConfig) -> FakeClient:
            return self.clients.setdefault(server.name, FakeClient(server))

        def now() -> float:
            return wall + trio.current_time()

        self.pool = BackendPool(
            lambda: self.rules, open_client=open_client, observer=PoolObserver()
        )
        with structlog.testing.capture_logs() as lines:
            log = structlog.get_logger()
            await persistence.restore(pool=self.pool, store=self.store, rise=2, log=log, now=now)
        self.warnings += lines
        nursery.start_soon(
            lambda: persistence.run(pool=self.pool, store=self.store, log=log, now=now)
        )

    def well(self, *names: str) -> None:
        for name in names:
            self.pool.probed(self.pool[name], ProbeResult("m", 2048, busy=False))

    def states(self) -> list[HealthState]:
        return [backend.health.state for backend in self.pool]


async def settled() -> None:
    await trio.sleep(2 * persistence.LEAST_GAP_SECONDS)
    await wait_all_tasks_blocked()


async def test_role_relapses_and_what_was_down_are_known_after_a_restart(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        before = Process(store)
        await before.start(nursery)
        before.well("p", "s")
        before.pool.saw(before.pool["p"], GenerationFailed(HealthEvent.LOST, "refused"))
        await settled()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        after = Process(store)
        await after.start(nursery, wall=1000.0)
        assert after.states() == [HealthState.DOWN, HealthState.UNKNOWN]
        assert after.pool["p"].health.reason == "refused (before the restart of the daemon)"
        assert after.pool["p"].health.identity.model == "m"
        assert after.pool.active.role is S
        assert after.pool.active.detail == before.pool.active.detail
        assert after.pool.acquire() is None, "nothing is sent anywhere before a probe"
        after.well("p")
        assert after.pool["p"].health.usable
        assert after.pool.active.role is P, "no standby is known to be usable"
        nursery.cancel_scope.cancel()


async def test_a_stuck_server_that_answers_probes_is_not_used_after_a_restart(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        before = Process(store)
        await before.start(nursery)
        before.well("p", "s")
        before.pool.saw(before.pool["p"], GenerationFailed(HealthEvent.STALLED, "no token"))
        await settled()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        after = Process(store)
        await after.start(nursery)
        after.pool.probed(after.pool["p"], ProbeResult("m", 2048, busy=True))
        after.well("s")
        assert after.states() == [HealthState.STUCK, HealthState.READY]
        slot = after.pool.acquire()
        assert slot is not None
        assert slot.backend.name == "s"
        nursery.cancel_scope.cancel()


async def test_a_hold_ends_when_it_would_have_without_the_restart(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        before = Process(store)
        await before.start(nursery, wall=5000.0)
        before.well("p")
        before.pool.saw(before.pool["p"], GenerationFailed(HealthEvent.STALLED, "no token"))
        held_until = before.pool["p"].health.held_until
        assert held_until is not None
        await settled()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        after = Process(store)
        # The machine was booted anew: the monotonic clock is another one, the calendar is not.
        await after.start(nursery, wall=5000.0 - 77.0)
        assert after.pool["p"].health.held_until == held_until + 77.0
        nursery.cancel_scope.cancel()


async def test_a_pin_outlives_the_process_but_not_its_server(autojump_clock: MockClock) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        before = Process(store)
        await before.start(nursery)
        before.pool.pin("s")
        await settled()
        same = Process(store)
        await same.start(nursery)
        assert same.pool.active.pinned == "s"
        other = Process(store, BackendsConfig(servers=RULES.servers[:1]))
        await other.start(nursery)
        assert other.pool.active.pinned is None
        nursery.cancel_scope.cancel()


async def test_a_server_at_another_address_is_not_taken_for_the_old_one(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        before = Process(store)
        await before.start(nursery)
        before.pool.saw(before.pool["p"], GenerationFailed(HealthEvent.LOST, "refused"))
        await settled()
        moved = ServerConfig(name="p", url="http://127.0.0.1:9")
        after = Process(store, BackendsConfig(servers=(moved,)))
        await after.start(nursery)
        assert after.states() == [HealthState.UNKNOWN]
        nursery.cancel_scope.cancel()


async def test_probes_that_change_nothing_write_nothing(autojump_clock: MockClock) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        process = Process(store)
        await process.start(nursery)
        await nursery.start(
            lambda task_status: prober.run(
                pool=process.pool, settings=lambda: RULES, task_status=task_status
            )
        )
        await settled()
        written = len(store.notes)
        for busy in (True, False) * 20:
            process.clients["p"].probe_result = ProbeResult("fake", busy=busy)
            await trio.sleep(3)
        assert len(store.notes) == written
        nursery.cancel_scope.cancel()


async def test_a_store_out_of_order_is_written_once_it_works_again(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    store.broken = True
    async with trio.open_nursery() as nursery:
        process = Process(store)
        await process.start(nursery)
        process.pool.pin("s")
        await trio.sleep(60)
        assert store.notes == []
        store.broken = False
        await settled()
        assert '"pinned":"s"' in store.notes[-1]
        nursery.cancel_scope.cancel()


async def test_a_record_that_cannot_be_read_is_left_aside(autojump_clock: MockClock) -> None:
    for note in ("", "{", '{"active": 7}', '{"active":{"role":"king"},"servers":{}}'):
        store = Store()
        await store.remember(persistence.RECORD_KEY, note)
        async with trio.open_nursery() as nursery:
            process = Process(store)
            await process.start(nursery)
            assert process.states() == [HealthState.UNKNOWN] * 2
            assert [line["event"] for line in process.warnings] == ["backends_not_recalled"]
            nursery.cancel_scope.cancel()


async def test_a_record_that_no_store_would_take_is_said_once_and_ends_nothing(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    store.refuses = UnicodeEncodeError("utf-8", "m\udcff", 1, 2, "surrogates not allowed")
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            process = Process(store)
            await process.start(nursery)
            for _ in range(3):
                process.pool.pin("s")
                await trio.sleep(60)
                process.pool.unpin()
                await trio.sleep(60)
            store.refuses = None
            process.pool.pin("s")
            await settled()
            assert '"pinned":"s"' in store.notes[-1]
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["backends_not_kept"]


async def test_an_earlier_version_can_read_that_a_server_loads(autojump_clock: MockClock) -> None:
    store = Store()
    async with trio.open_nursery() as nursery:
        process = Process(store)
        await process.start(nursery)
        process.pool.saw(process.pool["p"], ProbeNotYet("answered 503"))
        await settled()
        assert '"loading"' not in store.notes[-1]
        after = Process(store)
        await after.start(nursery)
        assert after.states() == [HealthState.DOWN, HealthState.UNKNOWN]
        nursery.cancel_scope.cancel()
