"""Events, outcomes and opened stores for the tests of the stores."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded, Usage
from ai_ticket_daemon.store.sqlite.store import SqliteStore
from ai_ticket_daemon.testing.clock import clock_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.store.port import CutOff, EventStore, Lease
    from ai_ticket_daemon.store.sqlite.log_file import LogFile

DONE = Succeeded("text", "primary", "stop", Usage(1, 1), 1.0, (Attempt("primary", 0, 1),))
BROKEN = Failed(
    ErrorCode.API_SERVER_ERROR,
    "it failed",
    {"backend": "primary"},
    attempts=(Attempt("primary", 0, 1, ErrorCode.API_SERVER_ERROR, "it failed"),),
)


def gone(attempts: tuple[Attempt, ...]) -> Failed:
    return Failed(ErrorCode.CANCELLED, "gone", attempts=attempts)


def event(event_id: str, text: str = "hi", **fields: Any) -> Event:
    fields = {"submitted_at": 0.0, "deadline_at": 100.0, **fields}
    return Event(event_id, (Message(Role.USER, text),), Sampling(), **fields)


async def claim(store: EventStore, now: float = 0) -> Lease | None:
    return await store.claim(now, backend="primary", until=now + 30)


async def claimed(store: EventStore, now: float = 0) -> Lease:
    lease = await claim(store, now)
    assert lease is not None
    return lease


async def state(store: EventStore, event_id: str) -> EventState:
    record = await store.get(event_id)
    assert record is not None
    return record.state


class Faults:
    """Remembers what a store says of itself."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.recovered = 0
        self.events: list[str] = []
        self.requests: list[CutOff] = []

    def store_failed(self, reason: str) -> None:
        self.failed.append(reason)

    def store_recovered(self, after_seconds: float) -> None:
        assert after_seconds >= 0
        self.recovered += 1

    def events_recovered(self, event_ids: Sequence[str]) -> None:
        self.events += event_ids

    def requests_cut_off(self, requests: Sequence[CutOff]) -> None:
        self.requests += requests


@asynccontextmanager
async def opened(
    path: Path,
    *,
    max_queued: Callable[[], int] = lambda: 100_000,
    faults: Faults | None = None,
    now: float = 0.0,
    vfs: str | None = None,
    log: LogFile | None = None,
) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(
        path,
        max_queued=max_queued,
        observer=faults or Faults(),
        clock=clock_of(lambda: now),
        vfs=vfs,
        log=log,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: store.run(task_status=task_status))
        yield store
        nursery.cancel_scope.cancel()


class Limit:
    """How many events the store under test lets wait."""

    max_queued = 100_000
