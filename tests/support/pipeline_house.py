"""A pipeline on fake backends, for tests with a clock of their own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from ai_ticket_daemon import AsyncInferencePipeline
from ai_ticket_daemon.backends.failure import BackendError, Failure, HealthEvent, RetryRule
from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.errors import ErrorCode, StoreUnavailable
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.pipeline.observer import PipelineObserver
from ai_ticket_daemon.pool import prober
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.testing.clock import clock_of
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.host.exhaustion import Exhaustion
    from ai_ticket_daemon.store.port import Beginnings, EventRecord, Lease, Preference, Receipt

PRIMARY = ServerConfig(name="primary", url="http://127.0.0.1:1")
STANDBY = ServerConfig(name="standby", url="http://127.0.0.1:2", role=BackendRole.STANDBY)


def event(
    text: str = "hello", *, priority: int = 5, seconds: float = 300, stream: bool = False
) -> Event:
    now = trio.current_time()
    return Event(
        event_id=f"id-{text}",
        messages=(Message(Role.USER, text),),
        sampling=Sampling(),
        submitted_at=now,
        deadline_at=now + seconds,
        priority=priority,
        stream=stream,
    )


def failure(
    code: ErrorCode = ErrorCode.API_SERVER_ERROR,
    retry: RetryRule = RetryRule.OVER,
    retry_after_seconds: float | None = None,
) -> BackendError:
    lost = code is ErrorCode.API_CONNECTION_ERROR
    return BackendError(
        Failure(code, retry, HealthEvent.LOST if lost else HealthEvent.FAILED),
        "it failed",
        retry_after_seconds=retry_after_seconds,
    )


def keyed(name: str) -> Event:
    return structs.replace(event(), event_id=name, owner="alice", idempotency_key="key")


class BrittleStore(MemoryStore):
    """A store that takes nothing while it is broken, and may be slow to say that it has."""

    broken = False
    slowness_seconds = 0.0
    claim_seconds = 0.0
    cancel_seconds = 0.0
    release_seconds = 0.0

    async def submit(
        self, events: Sequence[Event], *, owned: bool = False, beginnings: Beginnings = None
    ) -> list[Receipt]:
        self._check()
        return await super().submit(events, owned=owned, beginnings=beginnings)

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome, now: float) -> bool:
        self._check()
        return await super().complete(lease, state, outcome, now)

    async def claim(
        self,
        now: float,
        *,
        backend: str = "",
        until: float = 0.0,
        prefer: Preference | None = None,
    ) -> Lease | None:
        self._check()
        lease = await super().claim(now, backend=backend, until=until, prefer=prefer)
        await trio.sleep(self.claim_seconds)
        return lease

    async def cancel(
        self, event_id: str, now: float, outcome: Callable[[tuple[Attempt, ...]], Outcome]
    ) -> tuple[EventState, EventRecord] | None:
        await trio.sleep(self.cancel_seconds)
        return await super().cancel(event_id, now, outcome)

    async def release(self, lease: Lease, *, due_at: float, attempts: Sequence[Attempt]) -> bool:
        await trio.sleep(self.release_seconds)
        released = await super().release(lease, due_at=due_at, attempts=attempts)
        await trio.sleep(self.slowness_seconds)
        return released

    def _check(self) -> None:
        if self.broken:
            raise StoreUnavailable("the disk is full")


class Ends(PipelineObserver):
    def __init__(self) -> None:
        self.states: dict[str, EventState] = {}
        self.wasted: list[Attempt] = []
        self.leases_lost: list[Event] = []

    def lease_lost(self, event: Event) -> None:
        self.leases_lost.append(event)

    def thrown_away(self, attempt: Attempt) -> None:
        self.wasted.append(attempt)

    def ended(self, event: Event, state: EventState, outcome: Outcome) -> None:
        self.states[event.event_id] = state


@dataclass
class House:
    pipeline: AsyncInferencePipeline
    clients: dict[str, FakeClient]
    store: BrittleStore
    pool: BackendPool
    ends: Ends
    scope: trio.CancelScope

    @property
    def primary(self) -> FakeClient:
        return self.clients["primary"]


@asynccontextmanager
async def running(
    settings: PipelineConfig | None = None,
    servers: tuple[ServerConfig, ...] = (PRIMARY,),
    max_queued: int = 10_000,
    store: MemoryStore | None = None,
    exhaustion: Exhaustion | None = None,
) -> AsyncIterator[House]:
    rules = BackendsConfig(servers=servers)
    clients = {server.name: FakeClient(server) for server in servers}
    pool = BackendPool(
        lambda: rules,
        open_client=lambda server: clients[server.name],
        observer=PoolObserver(),
    )
    brittle = BrittleStore(max_queued=lambda: max_queued)
    ends = Ends()
    chosen = settings or PipelineConfig()
    pipeline = AsyncInferencePipeline(
        store=store or brittle,
        pool=pool,
        settings=lambda: chosen,
        observer=ends,
        clock=clock_of(trio.current_time),
        exhaustion=exhaustion,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: prober.run(
                pool=pool, settings=lambda: rules, task_status=task_status
            )
        )
        await nursery.start(lambda task_status: pipeline.run(task_status=task_status))
        yield House(pipeline, clients, brittle, pool, ends, nursery.cancel_scope)
        nursery.cancel_scope.cancel()
