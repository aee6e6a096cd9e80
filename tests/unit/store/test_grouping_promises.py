"""Whatever happens, no event suffers more from events that begin alike than was promised."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.events.outcome import Attempt
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.store.port import Preference
from tests.support.store.store_support import event, gone, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ai_ticket_daemon.store.port import EventStore, Lease

KINDS = ("a", "b")
SLOW_MACHINES = [HealthCheck.too_slow]
MOST, SECONDS, GIVEN_SECONDS = 2, 3.0, 9.0

submits = st.tuples(
    st.just("submit"),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.sampled_from([5, 5, 0]),
)
claims = st.tuples(st.just("claim"), st.sampled_from(KINDS))
others = st.tuples(st.sampled_from(["cancel", "release"]), st.integers(0, 99))
passing = st.tuples(st.just("pass"), st.sampled_from([1.0, 3.0]))
steps = st.lists(st.one_of(submits, claims, claims, claims, others, passing), max_size=60)


@dataclass
class Waiting:
    """What is seen of an event from outside."""

    priority: int
    place: int
    kind: str
    submitted_at: float
    overtaken: int = 0
    overtaken_at: float | None = None
    tried: bool = False


@asynccontextmanager
async def memory() -> AsyncIterator[EventStore]:
    yield MemoryStore()


@asynccontextmanager
async def sqlite() -> AsyncIterator[EventStore]:
    with tempfile.TemporaryDirectory(prefix="grouping-") as folder:
        async with opened(Path(folder) / "events.db") as store:
            yield store


class Watch:
    """Does what it is told to a store, and holds each claim against the promises."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._now = 0.0
        self._queued: dict[str, Waiting] = {}
        self._running: dict[str, tuple[Lease, Waiting]] = {}
        self._submitted = 0

    async def submit(self, kinds: Sequence[str], priority: int) -> None:
        names = [f"{kind}{self._submitted + offset}" for offset, kind in enumerate(kinds)]
        deadline_at = self._now + GIVEN_SECONDS
        await self._store.submit(
            [
                event(name, priority=priority, submitted_at=self._now, deadline_at=deadline_at)
                for name in names
            ],
            owned=False,
            beginnings=[kind.encode() for kind in kinds],
        )
        for name, kind in zip(names, kinds, strict=True):
            self._queued[name] = Waiting(priority, self._submitted, kind, self._now)
            self._submitted += 1

    async def claim(self, read: str) -> None:
        prefer = Preference((read.encode(),), MOST, SECONDS)
        lease = await self._store.claim(
            self._now, backend="primary", until=self._now + 1000, prefer=prefer
        )
        alive = {
            n: w for n, w in self._queued.items() if w.submitted_at + GIVEN_SECONDS > self._now
        }
        if lease is None:
            assert not alive
            return
        taken = alive[lease.event.event_id]
        assert taken.priority == min(w.priority for w in alive.values())
        before = [
            w for w in alive.values() if w.priority == taken.priority and w.place < taken.place
        ]
        assert (lease.ahead_of, lease.overtaken) == (len(before), taken.overtaken)
        if before:
            assert taken.kind == read
            assert not taken.tried
            assert len(before) <= MOST
        for passed_over in before:
            since = passed_over.overtaken_at
            assert since is None or self._now - since < SECONDS
            assert passed_over.submitted_at + GIVEN_SECONDS - self._now > SECONDS
            passed_over.overtaken_at = self._now if since is None else since
            passed_over.overtaken += 1
            assert passed_over.overtaken <= MOST
        del self._queued[lease.event.event_id]
        self._running[lease.event.event_id] = lease, taken

    async def cancel(self, pick: int) -> None:
        if self._queued:
            name = sorted(self._queued)[pick % len(self._queued)]
            del self._queued[name]
            await self._store.cancel(name, self._now, gone)

    async def release(self, pick: int) -> None:
        if self._running:
            name = sorted(self._running)[pick % len(self._running)]
            lease, waiting = self._running.pop(name)
            attempt = Attempt("primary", self._now, self._now)
            await self._store.release(lease, due_at=self._now, attempts=[*lease.attempts, attempt])
            waiting.tried = True
            self._queued[name] = waiting

    async def pass_(self, seconds: float) -> None:
        self._now += seconds


def hold(
    open_store: Callable[[], AbstractAsyncContextManager[EventStore]],
    todo: list[tuple[str, *tuple[object, ...]]],
) -> None:
    async def main() -> None:
        async with open_store() as store:
            watch = Watch(store)
            await watch.submit(["b", *"aaaaaa"], 5)
            for name, *arguments in todo:
                await getattr(watch, "pass_" if name == "pass" else name)(*arguments)

    trio.run(main)


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW_MACHINES)
@given(todo=steps)
def test_the_store_in_memory_keeps_its_promises(
    todo: list[tuple[str, *tuple[object, ...]]],
) -> None:
    hold(memory, todo)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW_MACHINES)
@given(todo=steps)
def test_the_sqlite_store_keeps_its_promises(todo: list[tuple[str, *tuple[object, ...]]]) -> None:
    hold(sqlite, todo)
