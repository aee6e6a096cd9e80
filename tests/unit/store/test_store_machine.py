"""Any sequence of calls leaves a store where a simple model of it says it should be.

The SQLite store has two daemons at one file, which come and go; the one in memory has one.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from ai_ticket_daemon.events.state import FINAL_STATES, EventState
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.store.port import Preference
from ai_ticket_daemon.store.sqlite.audit import audit_file
from tests.support.store.store_support import BROKEN, DONE, event, gone, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.store.port import EventStore, Lease

T = TypeVar("T")

LEASE_SECONDS = 10.0
MOST, SECONDS = 2, 6.0
"""How far an event may be taken ahead of others."""


@dataclass
class Known:
    """What the model knows of one event."""

    event: Event
    seq: int
    owner_instance: int | None
    state: EventState = EventState.QUEUED
    due_at: float = 0.0
    holder: int | None = None
    lease: Lease | None = None
    token: int = 0
    lease_until: float = 0.0
    attempts: int = 0
    outcome: Outcome | None = None
    ended_at: float = 0.0
    beginning: bytes | None = None
    overtaken: int = 0
    overtaken_at: float | None = None

    def may_be_passed_over(self, now: float) -> bool:
        since = now if self.overtaken_at is None else self.overtaken_at
        enough = self.event.deadline_at - now > SECONDS
        return self.overtaken < MOST and now - since < SECONDS and enough

    def pass_over(self, now: float) -> None:
        self.overtaken += 1
        self.overtaken_at = now if self.overtaken_at is None else self.overtaken_at

    def end(self, state: EventState, outcome: Outcome, now: float) -> None:
        self.state, self.outcome, self.ended_at = state, outcome, now
        self.attempts, self.holder, self.lease, self.owner_instance = (
            len(outcome.attempts),
            None,
            None,
            None,
        )

    def queue(self, instance: int, due_at: float, attempts: int) -> None:
        self.state, self.due_at, self.attempts = EventState.QUEUED, due_at, attempts
        self.owner_instance = self.owner_instance if self.owner_instance == instance else None
        self.holder = self.lease = None


class Lifetime:
    """When a store is to close, and that it has."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.closed = trio.Event()

    async def end(self) -> None:
        self.over.set()
        await self.closed.wait()


@dataclass
class Loop:
    """A trio event loop in a thread: Hypothesis's rules are plain functions."""

    ready: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        assert self.ready.wait(10)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._over = trio.Event()
        async with trio.open_nursery() as self._nursery:
            self.ready.set()
            await self._over.wait()

    def run(self, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        return trio.from_thread.run(partial(call, *args, **kwargs), trio_token=self._token)

    async def enter(self, store: AbstractAsyncContextManager[T]) -> tuple[T, Lifetime]:
        """Have a task of its own keep ``store`` open for the length of a life."""
        life = Lifetime()

        async def live(*, task_status: trio.TaskStatus[T]) -> None:
            async with store as entered:
                task_status.started(entered)
                await life.over.wait()
            life.closed.set()

        return await self._nursery.start(live), life

    def stop(self) -> None:
        self._token.run_sync_soon(self._over.set)
        self._thread.join(10)


class StoreMachine(RuleBasedStateMachine):
    """One daemon, one store in memory."""

    daemons = 1

    def __init__(self) -> None:
        super().__init__()
        self.now = 1.0
        self.events: dict[str, Known] = {}
        self.leases: list[tuple[int, Lease]] = []
        self.accepted = self.named = 0
        self.pruned: Counter[EventState] = Counter()
        self.stores: dict[int, EventStore] = {}
        self.loop = Loop()
        self.loop.start()

    @initialize()
    def begin(self) -> None:
        self.stores[0] = MemoryStore()

    def teardown(self) -> None:
        self.loop.stop()

    def call(self, instance: int, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.loop.run(getattr(self.stores[instance], method), *args, **kwargs)

    def instance(self, pick: int) -> int:
        return sorted(self.stores)[pick % len(self.stores)]

    def pick_event(self, pick: int) -> str | None:
        return sorted(self.events)[pick % len(self.events)] if self.events else None

    @precondition(lambda self: self.stores)
    @rule(
        pick=st.integers(0, 1),
        number=st.integers(1, 3),
        priority=st.sampled_from([0, 5, 9]),
        timeout=st.sampled_from([3.0, 30.0, 1000.0]),
        owned=st.booleans(),
        key=st.sampled_from([None, None, "k1", "k2"]),
        beginnings=st.none()
        | st.lists(st.sampled_from([None, b"a", b"b"]), min_size=3, max_size=3),
    )
    def submit(
        self,
        pick: int,
        number: int,
        priority: int,
        timeout: float,
        owned: bool,
        key: str | None,
        beginnings: list[bytes | None] | None,
    ) -> None:
        instance = self.instance(pick)
        batch = [
            event(
                f"e{self.named + offset:04d}",
                priority=priority,
                submitted_at=self.now,
                deadline_at=self.now + timeout,
                idempotency_key=key if offset == 0 else None,
            )
            for offset in range(number)
        ]
        self.named += number
        known_by = None if beginnings is None else beginnings[:number]
        receipts = self.call(instance, "submit", batch, owned=owned, beginnings=known_by)
        begins = known_by or [None] * number
        for new, receipt, beginning in zip(batch, receipts, begins, strict=True):
            same = [k for k in self.events.values() if key and k.event.idempotency_key == key]
            if new.idempotency_key and same:
                assert len(same) == 1
                alike = same[0].event.priority == priority
                assert receipt.replayed is alike
                assert (receipt.refusal is None) is alike
                assert receipt.event_id == (same[0].event if alike else new).event_id
                continue
            assert (receipt.event_id, receipt.replayed) == (new.event_id, False)
            self.events[new.event_id] = Known(
                new,
                self.accepted,
                instance if owned and self.daemons > 1 else None,
                beginning=beginning,
            )
            self.accepted += 1

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1), read=st.none() | st.sets(st.sampled_from([b"a", b"b"])))
    def claim(self, pick: int, read: set[bytes] | None) -> None:
        instance = self.instance(pick)
        due = [
            known
            for known in self.events.values()
            if known.state is EventState.QUEUED
            and known.due_at <= self.now < known.event.deadline_at
            and known.owner_instance in {None, instance}
        ]
        first = min(due, key=lambda k: (k.event.priority, k.seq), default=None)
        self.call(instance, "changed_elsewhere")
        until = self.now + LEASE_SECONDS
        prefer = None if read is None else Preference(tuple(read), MOST, SECONDS)
        lease = self.call(
            instance, "claim", self.now, backend="primary", until=until, prefer=prefer
        )
        if first is None:
            assert lease is None
            return
        assert lease is not None
        assert lease.overtaken == self.events[lease.event.event_id].overtaken
        before = sorted(
            (k for k in due if k.event.priority == first.event.priority), key=lambda k: k.seq
        )
        alike = (k for k in before if not k.attempts and k.beginning in (read or ()))
        taken = next(alike, first)
        before = before[: before.index(taken)]
        if len(before) > MOST or not all(k.may_be_passed_over(self.now) for k in before):
            taken, before = first, []
        assert lease.event == taken.event
        assert lease.ahead_of == len(before)
        for known in before:
            known.pass_over(self.now)
            assert known.overtaken <= MOST
        first = taken
        assert len(lease.attempts) == first.attempts
        assert all(lease.token != old.token or lease.event != old.event for _, old in self.leases)
        first.state, first.holder, first.lease = EventState.RUNNING, instance, lease
        first.lease_until, first.token = until, lease.token
        self.leases.append((instance, lease))

    def picked_lease(self, pick: int) -> tuple[int, Lease, Known | None] | None:
        here = [(instance, lease) for instance, lease in self.leases if instance in self.stores]
        if not here:
            return None
        instance, lease = here[pick % len(here)]
        known = self.events.get(lease.event.event_id)
        held = known is not None and known.lease == lease and known.holder == instance
        return instance, lease, known if held else None

    @rule(pick=st.integers(0, 50), ends_well=st.booleans())
    def complete(self, pick: int, ends_well: bool) -> None:
        picked = self.picked_lease(pick)
        if picked is None:
            return
        instance, lease, known = picked
        state = EventState.SUCCEEDED if ends_well else EventState.FAILED
        outcome: Any = DONE if ends_well else BROKEN
        written = self.call(instance, "complete", lease, state, outcome, self.now)
        now_or_before = self.events.get(lease.event.event_id)
        again = now_or_before is not None and (
            (now_or_before.token, now_or_before.outcome) == (lease.token, outcome)
        )
        assert written is (known is not None or again)
        if known is not None:
            known.end(state, outcome, self.now)

    @rule(pick=st.integers(0, 50), delay=st.sampled_from([0.0, 2.0, 40.0]))
    def release(self, pick: int, delay: float) -> None:
        picked = self.picked_lease(pick)
        if picked is None:
            return
        instance, lease, known = picked
        attempts = (*lease.attempts, *DONE.attempts)
        due_at = self.now + delay
        written = self.call(instance, "release", lease, due_at=due_at, attempts=attempts)
        assert written is (known is not None)
        if known is not None:
            known.queue(instance, due_at, len(attempts))

    @precondition(lambda self: self.stores and self.events)
    @rule(pick=st.integers(0, 1), which=st.integers(0, 50))
    def cancel(self, pick: int, which: int) -> None:
        event_id = self.pick_event(which)
        known = self.events[str(event_id)]
        before, record = self.call(self.instance(pick), "cancel", event_id, self.now, gone)
        assert before is known.state
        if before not in FINAL_STATES:
            known.end(EventState.CANCELLED, record.outcome, self.now)
        assert record.outcome == known.outcome

    @precondition(lambda self: self.stores and self.events)
    @rule(pick=st.integers(0, 1), which=st.integers(0, 50))
    def retry(self, pick: int, which: int) -> None:
        event_id = self.pick_event(which)
        known = self.events[str(event_id)]
        record = self.call(self.instance(pick), "retry", event_id, self.now)
        if known.state is EventState.FAILED:
            known.state, known.due_at, known.outcome = EventState.QUEUED, 0.0, None
            known.overtaken, known.overtaken_at = 0, None
            known.event = record.event
            assert record.event.deadline_at > self.now
        assert record.state is known.state

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1))
    def expire(self, pick: int) -> None:
        late = {
            event_id
            for event_id, known in self.events.items()
            if known.state is EventState.QUEUED and known.event.deadline_at <= self.now
        }
        expired = self.call(self.instance(pick), "expire", self.now, 1000)
        assert {record.event.event_id for record in expired} == late
        for record in expired:
            self.events[record.event.event_id].end(EventState.EXPIRED, record.outcome, self.now)

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1), begin=st.sampled_from([0.5, 4.0, 100.0]))
    def give_back_time(self, pick: int, begin: float) -> None:
        begin = self.now - begin
        moved = 0
        for known in self.events.values():
            since = max(begin, known.event.submitted_at)
            if known.state is EventState.QUEUED and since < self.now:
                deadline_at = known.event.deadline_at + (self.now - since)
                known.event = structs.replace(known.event, deadline_at=deadline_at)
                moved += 1
        assert self.call(self.instance(pick), "give_back_time", begin, self.now) == moved

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1), age=st.sampled_from([0.0, 5.0]))
    def prune(self, pick: int, age: float) -> None:
        before = self.now - age
        old = [i for i, k in self.events.items() if k.outcome is not None and k.ended_at < before]
        assert self.call(self.instance(pick), "prune", before, 1000) == len(old)
        for event_id in old:
            self.pruned[self.events.pop(event_id).state] += 1

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1))
    def extend(self, pick: int) -> None:
        instance = self.instance(pick)
        held = {i: k for i, k in self.events.items() if k.holder == instance}
        tokens = self.call(instance, "extend", self.now + LEASE_SECONDS)
        assert tokens == {i: k.lease.token for i, k in held.items() if k.lease is not None}
        for known in held.values():
            known.lease_until = self.now + LEASE_SECONDS

    @rule(seconds=st.sampled_from([0.5, 4.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts_agree(self) -> None:
        for instance in self.stores:
            counts = self.call(instance, "counts")
            states = Counter(known.state for known in self.events.values()) + self.pruned
            assert counts.accepted == self.accepted
            assert counts.states == {state: states[state] for state in EventState}
            assert counts.difference == 0

    @precondition(lambda self: self.stores and self.events)
    @rule(pick=st.integers(0, 1), which=st.integers(0, 50))
    def look(self, pick: int, which: int) -> None:
        event_id = self.pick_event(which)
        known = self.events[str(event_id)]
        record = self.call(self.instance(pick), "get", event_id)
        assert (record.event, record.state) == (known.event, known.state)
        assert (record.outcome, len(record.attempts)) == (known.outcome, known.attempts)
        assert (record.position is not None) is (known.state is EventState.QUEUED)
        ended = self.call(self.instance(pick), "outcomes", list(self.events))
        assert ended == {i: k.outcome for i, k in self.events.items() if k.outcome is not None}


class SqliteStoreMachine(StoreMachine):
    """Two daemons at one file, with instance locks 0 and 1 while they live."""

    daemons = 2

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.lives: dict[int, Lifetime] = {}
        self.come()
        self.come()

    def teardown(self) -> None:
        for instance in list(self.stores):
            self.go(instance)
        problems = audit_file(self.folder / "events.db").problems
        self.loop.stop()
        shutil.rmtree(self.folder)
        assert problems == ()

    @precondition(lambda self: len(self.stores) < self.daemons)
    @rule()
    def come(self) -> None:
        """A daemon takes the first free instance lock, and recovers what was left there."""
        instance = min({0, 1} - self.stores.keys())

        async def enter() -> None:
            store = opened(self.folder / "events.db", now=self.now)
            self.stores[instance], self.lives[instance] = await self.loop.enter(store)

        self.loop.run(enter)
        self.recovered(instance, instance, self.now, alive=False)

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1))
    def daemon_goes(self, pick: int) -> None:
        self.go(self.instance(pick))

    def go(self, instance: int) -> None:
        """A daemon ends without a word; what it ran stays as it is."""
        self.loop.run(self.lives.pop(instance).end)
        del self.stores[instance]

    @precondition(lambda self: self.stores)
    @rule(pick=st.integers(0, 1))
    def recover(self, pick: int) -> None:
        instance = self.instance(pick)
        other = 1 - instance
        found = self.call(instance, "recover", self.now)
        assert set(found) == self.recovered(instance, other, self.now, alive=other in self.stores)

    def recovered(self, by: int, instance: int, now: float, *, alive: bool) -> set[str]:
        """Do in the model what a daemon does with what ``instance`` left; return the ids."""
        lost = {
            event_id: known
            for event_id, known in self.events.items()
            if known.holder == instance and (not alive or known.lease_until <= now)
        }
        for known in self.events.values():
            if not alive and known.state is EventState.QUEUED and known.owner_instance == instance:
                known.owner_instance = None
        for known in lost.values():
            known.queue(by, 0.0, known.attempts + 1)
        return set(lost)


_SETTINGS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

TestMemoryStore = StoreMachine.TestCase
TestMemoryStore.settings = _SETTINGS
TestSqliteStore = SqliteStoreMachine.TestCase
TestSqliteStore.settings = _SETTINGS
