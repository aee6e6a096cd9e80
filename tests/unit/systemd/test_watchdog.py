"""The watchdog is fed while all parts make progress, and starves when one of them hangs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon import AsyncInferencePipeline
from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.liveness import SLACK_SECONDS, Liveness
from ai_ticket_daemon.pipeline.worker import OVERTIME_SECONDS
from ai_ticket_daemon.pool import prober
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.systemd import watchdog
from ai_ticket_daemon.systemd.notify import Notifier, Systemd
from ai_ticket_daemon.testing.clock import clock_of
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trio.testing import MockClock

    from ai_ticket_daemon.backends.generation import (
        GenerationRequest,
        GenerationResult,
        ProbeResult,
    )
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.store.port import Lease

LIMIT_SECONDS = 8.0
PRIMARY = ServerConfig(name="primary", url="http://127.0.0.1:1")


@dataclass
class House:
    """A watchdog and its log: every message with the second it was sent in."""

    liveness: Liveness = field(default_factory=Liveness)
    status: str = "fine"
    draining: bool = False
    hung: list[list[str]] = field(default_factory=list)
    told: list[tuple[float, str]] = field(default_factory=list)

    def fed_at(self) -> list[float]:
        return [at for at, message in self.told if message == "WATCHDOG=1"]

    def messages(self, start: str) -> list[str]:
        return [message for _, message in self.told if message.startswith(start)]

    def fed_within_its_limit_until(self, end: float) -> bool:
        moments = [0.0, *self.fed_at(), end]
        gaps = [b - a for a, b in pairwise(moments)]
        return max(gaps) < LIMIT_SECONDS


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    built = House()

    class Recorder(Notifier):
        def _send(self, *assignments: str, patience_seconds: float = 0.0) -> bool:
            built.told.append((trio.current_time(), "\n".join(assignments)))
            return True

    def starved(parts: Sequence[str]) -> None:
        built.hung.append(list(parts))

    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: watchdog.run(
                systemd=Systemd(Recorder("somewhere"), LIMIT_SECONDS),
                liveness=built.liveness,
                status=lambda: built.status,
                draining=lambda: built.draining,
                starved=starved,
                task_status=task_status,
            )
        )
        yield built
        nursery.cancel_scope.cancel()


async def test_an_idle_daemon_is_fed_well_within_the_limit(autojump_clock: MockClock) -> None:
    async with house() as h:
        await trio.sleep(100)
    assert h.fed_within_its_limit_until(100)
    assert h.hung == []


async def test_a_part_that_keeps_its_promises_is_alive(autojump_clock: MockClock) -> None:
    async with house() as h:
        pulse = h.liveness.pulse("prober")
        for _ in range(20):
            pulse.beat("primary", 5)
            await trio.sleep(5)
        pulse.end("primary")
        await trio.sleep(100)
    assert h.fed_within_its_limit_until(200)


async def test_one_hung_part_starves_the_watchdog_whatever_the_others_do(
    autojump_clock: MockClock,
) -> None:
    async with house() as h:
        pulse = h.liveness.pulse("prober")
        pulse.beat("standby", 5)
        for _ in range(20):
            pulse.beat("primary", 5)
            await trio.sleep(5)
    assert max(h.fed_at()) <= 5 + SLACK_SECONDS
    assert h.hung == [["prober: standby"]]  # said once, not every two seconds


async def test_a_part_that_recovers_is_fed_for_again(autojump_clock: MockClock) -> None:
    async with house() as h:
        pulse = h.liveness.pulse("prober")
        pulse.beat("primary", 1)
        await trio.sleep(1 + SLACK_SECONDS + 3)
        pulse.beat("primary", 1000)
        await trio.sleep(10)
    assert max(h.fed_at()) > 20


async def test_a_restarted_actor_is_not_held_to_the_promises_of_its_earlier_life(
    autojump_clock: MockClock,
) -> None:
    async with house() as h:
        h.liveness.pulse("prober").beat("a server that is gone", 5)
        h.liveness.pulse("pipeline").beat("tidier", 1000)
        h.liveness.pulse("prober")
        await trio.sleep(100)
    assert h.fed_within_its_limit_until(100)


async def test_the_status_is_sent_when_it_changes(autojump_clock: MockClock) -> None:
    async with house() as h:
        await trio.sleep(10)
        h.status = "worse"
        await trio.sleep(10)
    assert h.messages("STATUS=") == ["STATUS=fine", "STATUS=worse"]


async def test_a_drain_asks_for_time_again_and_again_and_then_no_more(
    autojump_clock: MockClock,
) -> None:
    async with house() as h:
        h.draining = True
        await trio.sleep(20)
        asked = len(h.messages("EXTEND_TIMEOUT_USEC=30000000"))
        h.draining = False
        await trio.sleep(20)
    assert asked >= 9
    assert len(h.messages("EXTEND_TIMEOUT_USEC=")) <= asked + 1


class _HangsAfter(FakeClient):
    """A server whose client hangs for good, deaf to its time limit, after some probes."""

    def __init__(self, probes: int) -> None:
        super().__init__(PRIMARY)
        self.left = probes

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        self.left -= 1
        if self.left < 0:
            with trio.CancelScope(shield=True):
                await trio.sleep(10_000)
        return await super().probe()


@asynccontextmanager
async def probing(
    h: House, client: FakeClient, pool: BackendPool | None = None
) -> AsyncIterator[Callable[[], object]]:
    rules = BackendsConfig(servers=(PRIMARY,))
    pool = pool or BackendPool(lambda: rules, open_client=lambda _: client, observer=PoolObserver())
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: prober.run(
                pool=pool, settings=lambda: rules, liveness=h.liveness, task_status=task_status
            )
        )
        yield lambda: pool.apply(())
        nursery.cancel_scope.cancel()


async def test_a_prober_that_probes_keeps_the_watchdog_fed(autojump_clock: MockClock) -> None:
    async with house() as h, probing(h, FakeClient(PRIMARY)):
        await trio.sleep(300)
        assert h.hung == []
        assert h.fed_within_its_limit_until(300)


async def test_a_prober_that_hangs_starves_it(autojump_clock: MockClock) -> None:
    async with house() as h, probing(h, _HangsAfter(probes=3)):
        await trio.sleep(300)
        ((part,),) = h.hung
        assert part.startswith("prober: primary")
        assert max(h.fed_at()) < 60


async def test_a_removed_server_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with house() as h, probing(h, FakeClient(PRIMARY)) as remove:
        await trio.sleep(10)
        remove()
        await trio.sleep(300)
        assert h.hung == []


class _NeverEnds(FakeClient):
    """A server whose client is deaf to cancellation: its generations last until released."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        self.released = trio.Event()

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        with trio.CancelScope(shield=True):
            await self.released.wait()
        return await super().generate(request, on_delta)


class _Store(MemoryStore):
    """Hangs or fails when told to, as a disk does."""

    hung = False
    broken = False

    async def next_due(self) -> float | None:
        if self.hung:
            await trio.sleep_forever()
        return await super().next_due()

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome, now: float) -> bool:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        return await super().complete(lease, state, outcome, now)


@asynccontextmanager
async def pipeline(
    h: House, client: FakeClient, store: _Store
) -> AsyncIterator[AsyncInferencePipeline]:
    rules = BackendsConfig(servers=(PRIMARY,))
    pool = BackendPool(lambda: rules, open_client=lambda _: client, observer=PoolObserver())
    built = AsyncInferencePipeline(
        store=store,
        pool=pool,
        settings=PipelineConfig,
        liveness=h.liveness,
        clock=clock_of(trio.current_time),
    )
    async with probing(h, client, pool), trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: built.run(task_status=task_status))
        yield built
        nursery.cancel_scope.cancel()


def event() -> Event:
    now = trio.current_time()
    return Event(
        event_id="id",
        messages=(Message(Role.USER, "hello"),),
        sampling=Sampling(),
        submitted_at=now,
        deadline_at=now + 300,
    )


async def test_an_idle_pipeline_and_a_busy_one_keep_the_watchdog_fed(
    autojump_clock: MockClock,
) -> None:
    slow = FakeClient(PRIMARY, seconds=200)
    async with house() as h, pipeline(h, slow, _Store(max_queued=lambda: 9)) as built:
        await trio.sleep(100)
        await (await built.submit(event())).outcome()
        await trio.sleep(100)
        assert h.hung == []
        assert h.fed_within_its_limit_until(400)


async def test_a_worker_that_outlasts_its_deadline_by_far_starves_it(
    autojump_clock: MockClock,
) -> None:
    client = _NeverEnds(PRIMARY)
    async with house() as h, pipeline(h, client, _Store(max_queued=lambda: 9)) as built:
        await built.submit(event())
        await trio.sleep(500)
        assert h.hung == [["pipeline: event id"]]
        assert 300 + OVERTIME_SECONDS < max(h.fed_at()) < 400
        client.released.set()


async def test_a_store_that_hangs_starves_it(autojump_clock: MockClock) -> None:
    store = _Store(max_queued=lambda: 9)
    async with house() as h, pipeline(h, FakeClient(PRIMARY), store):
        await trio.sleep(100)
        store.hung = True
        await trio.sleep(100)
        assert h.hung == [["pipeline: tidier"]]
        assert max(h.fed_at()) < 150


async def test_a_store_that_fails_is_no_reason_to_start_anew(autojump_clock: MockClock) -> None:
    store = _Store(max_queued=lambda: 9)
    async with house() as h, pipeline(h, FakeClient(PRIMARY), store) as built:
        store.broken = True
        await built.submit(event())
        await trio.sleep(1000)
        assert h.hung == []
        assert built.in_flight == 1  # its outcome waits to be written


async def test_a_pipeline_that_was_stopped_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with house() as h:
        async with pipeline(h, FakeClient(PRIMARY), _Store(max_queued=lambda: 9)):
            await trio.sleep(10)
        await trio.sleep(300)
        assert h.hung == []
