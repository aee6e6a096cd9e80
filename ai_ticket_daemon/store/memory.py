"""The event store in memory: lives as long as the process; the fake that tests use, too."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import TYPE_CHECKING

import trio
from msgspec import structs

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.event import payload_digest, without_text
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import FINAL_STATES, EventState, transition
from ai_ticket_daemon.store.order import Candidate, choose_next
from ai_ticket_daemon.store.port import (
    KEPT_CHANGES,
    Change,
    Counts,
    EventPage,
    EventRecord,
    EventSummary,
    Lease,
    Receipt,
)
from ai_ticket_daemon.store.rules import check_room, expired_in_queue, fresh, replay, retried_event

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.store.port import Beginnings, EventFilter, Order, Preference


_SLACK = 1024
"""How many stale entries the heap of deadlines may hold before it is cleaned."""

_PIECE = 256
"""How many events are changed before others have their turn: a millisecond or two."""


@dataclass(slots=True)
class _Row:
    event: Event
    place: tuple[int, int]
    digest: bytes | None = None
    state: EventState = EventState.QUEUED
    due_at: float = 0.0
    token: int = 0
    attempts: tuple[Attempt, ...] = ()
    outcome: Outcome | None = None
    ended_at: float = 0.0
    ahead: int = 0
    backend: str | None = None
    claimed_at: float | None = None
    owned: bool = False
    beginning: bytes | None = None
    overtaken: int = 0
    overtaken_at: float | None = None

    def as_candidate(self) -> Candidate:
        """Return what decides whether it is next; a retry waits its turn."""
        beginning = None if self.attempts else self.beginning
        return Candidate(self.event.deadline_at, beginning, self.overtaken, self.overtaken_at)


class MemoryStore:
    """Keeps events in dictionaries and heaps; nothing survives the process.

    The heaps may hold stale entries (an event cancelled while it waited); whoever takes an entry
    out checks the row it points to, so that cancelling costs no search.

    Args:
        max_queued: how many events may wait, asked at each submission.
        keep_ended: how many ended events are remembered; the oldest are forgotten first.
    """

    fault: str | None = None

    def __init__(
        self, *, max_queued: Callable[[], int] = lambda: 100_000, keep_ended: int = 1000
    ) -> None:
        self._max_queued = max_queued
        self._keep_ended = keep_ended
        self._rows: dict[str, _Row] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._ready: list[tuple[int, int, str]] = []
        self._later: list[tuple[float, str]] = []
        self._deadlines: list[tuple[float, str]] = []
        self._ended: deque[str] = deque()
        self._accepted = 0
        self._counts: Counter[EventState] = Counter()
        self._queued: Counter[int] = Counter()
        self._sequence = count()
        self._tokens = count(1)
        self._notes: dict[str, str] = {}
        self._orders: dict[str, Order] = {}
        self._ordering = trio.Lock()
        self._held_since = 0.0
        self._about = ""
        self._changes: deque[Change] = deque(maxlen=KEPT_CHANGES)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See :meth:`EventStore.run`."""
        task_status.started()
        await trio.sleep_forever()

    async def submit(
        self, events: Sequence[Event], *, owned: bool = False, beginnings: Beginnings = None
    ) -> list[Receipt]:
        """See :meth:`EventStore.submit`; ``owned`` says only that a client waits."""
        new = {
            event.event_id
            if event.idempotency_key is None
            else (event.owner, event.idempotency_key)
            for event in events
            if self._known(event) is None
        }
        check_room(self._counts[EventState.QUEUED], len(new), self._max_queued())
        return [
            self._known(event)
            or Receipt(event.event_id, self._accept(event, owned=owned, beginning=beginning))
            for event, beginning in zip(events, beginnings or repeat(None), strict=False)
        ]

    async def claim(
        self,
        now: float,
        *,
        backend: str = "",
        until: float = 0.0,
        prefer: Preference | None = None,
    ) -> Lease | None:
        """See :meth:`EventStore.claim`; a lease holds as long as the process."""
        del until
        while self._later and self._later[0][0] <= now:
            _, event_id = heapq.heappop(self._later)
            row = self._rows.get(event_id)
            if row is not None and row.state is EventState.QUEUED and row.due_at <= now:
                self._make_ready(row)
        head = self._take_head(now, 1 if prefer is None else prefer.looks)
        if not head:
            return None
        chosen = 0
        if prefer is not None:
            chosen = choose_next([row.as_candidate() for row in head], prefer, now)
        row = head.pop(chosen)
        for other in head:
            self._make_ready(other)
        for other in head[:chosen]:
            other.overtaken += 1
            other.overtaken_at = now if other.overtaken_at is None else other.overtaken_at
        self._move(row, EventState.RUNNING)
        row.token = next(self._tokens)
        row.backend, row.claimed_at = backend, now
        beginning = None if prefer is None else row.beginning
        return Lease(row.event, row.token, row.attempts, beginning, chosen, row.overtaken)

    async def extend(self, until: float) -> Mapping[str, int]:
        """See :meth:`EventStore.extend`."""
        del until
        running = ((i, row) for i, row in self._rows.items() if row.state is EventState.RUNNING)
        return {event_id: row.token for event_id, row in running}

    async def recover(self, now: float) -> list[str]:
        """See :meth:`EventStore.recover`; there is no other daemon."""
        del now
        return []

    async def release_owner(self) -> None:
        """See :meth:`EventStore.release_owner`."""
        for row in self._rows.values():
            row.owned = False

    async def next_due(self) -> float | None:
        """See :meth:`EventStore.next_due`."""
        while self._ready:
            row = self._rows.get(self._ready[0][2])
            if row is not None and row.state is EventState.QUEUED:
                return row.due_at
            heapq.heappop(self._ready)
        while self._later:
            due_at, event_id = self._later[0]
            row = self._rows.get(event_id)
            if row is not None and row.state is EventState.QUEUED:
                return due_at
            heapq.heappop(self._later)
        return None

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome, now: float) -> bool:
        """See :meth:`EventStore.complete`."""
        row = self._held(lease)
        if row is not None:
            self._end(row, state, outcome, now)
            return True
        ended = self._rows.get(lease.event.event_id)
        return ended is not None and ended.token == lease.token and ended.outcome == outcome

    async def release(self, lease: Lease, *, due_at: float, attempts: Sequence[Attempt]) -> bool:
        """See :meth:`EventStore.release`."""
        row = self._held(lease)
        if row is None:
            return False
        self._move(row, EventState.QUEUED)
        row.due_at = due_at
        row.attempts = tuple(attempts)
        heapq.heappush(self._later, (due_at, row.event.event_id))
        # The deadline may have passed, and been looked at, while the event was running.
        heapq.heappush(self._deadlines, (row.event.deadline_at, row.event.event_id))
        return True

    async def cancel(
        self, event_id: str, now: float, outcome: Callable[[tuple[Attempt, ...]], Outcome]
    ) -> tuple[EventState, EventRecord] | None:
        """See :meth:`EventStore.cancel`."""
        row = self._rows.get(event_id)
        if row is None:
            return None
        before = row.state
        if before not in FINAL_STATES:
            self._end(row, EventState.CANCELLED, outcome(row.attempts), now)
        return before, replace(self._record(row), event=without_text(row.event))

    async def retry(self, event_id: str, now: float) -> EventRecord | None:
        """See :meth:`EventStore.retry`."""
        row = self._rows.get(event_id)
        if row is None:
            return None
        if row.state is EventState.FAILED:
            self._move(row, EventState.QUEUED)
            self._ended.remove(event_id)
            row.event = retried_event(row.event, now)
            row.attempts, row.outcome, row.due_at = fresh(row.attempts), None, 0.0
            row.overtaken, row.overtaken_at = 0, None
            self._make_ready(row)
            heapq.heappush(self._deadlines, (row.event.deadline_at, event_id))
        return self._record(row)

    async def expire(
        self, now: float, limit: int = 1000, *, held: str | None = None
    ) -> list[EventRecord]:
        """See :meth:`EventStore.expire`."""
        expired: list[EventRecord] = []
        kept: list[tuple[float, str]] = []
        while self._deadlines and self._deadlines[0][0] <= now and len(expired) < limit:
            _, event_id = heapq.heappop(self._deadlines)
            row = self._rows.get(event_id)
            if row is not None and row.state is EventState.QUEUED and row.event.deadline_at <= now:
                if self._are_held() and not row.owned:
                    kept.append((row.event.deadline_at, event_id))
                    continue
                outcome = expired_in_queue(row.event, row.attempts, held)
                self._end(row, EventState.EXPIRED, outcome, now)
                expired.append(self._record(row))
        for deadline in kept:
            heapq.heappush(self._deadlines, deadline)
        return expired

    async def give_back_time(self, begin: float, end: float) -> int:
        """See :meth:`EventStore.give_back_time`; others have their turn meanwhile."""
        queued = [row for row in self._rows.values() if row.state is EventState.QUEUED]
        moved = 0
        # Not to be cut short: a second try would give the first ones their time twice.
        with trio.CancelScope(shield=True):
            for number, row in enumerate(queued, 1):
                moved += self._give_back(row, begin, end)
                if number % _PIECE == 0:
                    await trio.lowlevel.checkpoint()
        return moved

    def _give_back(self, row: _Row, begin: float, end: float) -> bool:
        since = max(begin, row.event.submitted_at)
        if row.state is not EventState.QUEUED or since >= end:
            return False
        deadline_at = row.event.deadline_at + (end - since)
        if row.event.deadline_at <= end:  # a claim may have passed it over as too late
            heapq.heappush(self._later, (row.due_at, row.event.event_id))
        row.event = structs.replace(row.event, deadline_at=deadline_at)
        heapq.heappush(self._deadlines, (deadline_at, row.event.event_id))
        return True

    async def prune(self, before: float, limit: int) -> int:
        """See :meth:`EventStore.prune`."""
        pruned = 0
        while self._ended and pruned < limit:
            row = self._rows[self._ended[0]]
            if row.ended_at >= before:
                break
            self._forget(self._ended.popleft())
            pruned += 1
        return pruned

    async def forget(self, event_ids: Sequence[str]) -> int:
        """See :meth:`EventStore.forget`."""
        ended = [i for i in event_ids if i in self._rows and self._rows[i].outcome is not None]
        for event_id in ended:
            self._ended.remove(event_id)
            self._forget(event_id)
        return len(ended)

    async def page(self, wanted: EventFilter, *, below: int | None, limit: int) -> EventPage:
        """See :meth:`EventStore.page`; sorts all there is, of which there is little here."""
        summaries = (_summary(row) for row in self._rows.values())
        found = sorted(
            (s for s in summaries if (below is None or s.place < below) and _meets(s, wanted)),
            key=lambda summary: -summary.place,
        )
        last = found[limit - 1].place if len(found) >= limit else None
        return EventPage(tuple(found[:limit]), last)

    async def backup(self, target: Path) -> None:
        """See :meth:`EventStore.backup`."""
        raise StoreUnavailable(
            f"events are kept in memory, so there is nothing to write to {target}; "
            "set store.url to a SQLite file"
        )

    async def get(self, event_id: str) -> EventRecord | None:
        """See :meth:`EventStore.get`."""
        row = self._rows.get(event_id)
        return None if row is None else self._record(row)

    async def outcomes(self, event_ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`EventStore.outcomes`."""
        rows = ((event_id, self._rows.get(event_id)) for event_id in event_ids)
        return {i: row.outcome for i, row in rows if row is not None and row.outcome is not None}

    async def changed_elsewhere(self) -> bool:
        """See :meth:`EventStore.changed_elsewhere`; there is nobody else."""
        return False

    async def counts(self) -> Counts:
        """See :meth:`EventStore.counts`."""
        return Counts(self._accepted, {state: self._counts[state] for state in EventState})

    async def oldest_queued_at(self) -> float | None:
        """See :meth:`EventStore.oldest_queued_at`."""
        queued = (r for r in self._rows.values() if r.state is EventState.QUEUED)
        return min((r.event.submitted_at for r in queued), default=None)

    async def note_changes(self, changes: Sequence[Change]) -> None:
        """See :meth:`EventStore.note_changes`; kept as long as the process."""
        self._changes.extend(changes)

    async def changes(self, begin: float, end: float) -> list[Change]:
        """See :meth:`EventStore.changes`."""
        return [change for change in self._changes if begin <= change.at <= end]

    async def remember(self, key: str, value: str) -> None:
        """See :meth:`EventStore.remember`; kept as long as the process."""
        self._notes[key] = value

    async def recall(self, key: str) -> str | None:
        """See :meth:`EventStore.recall`."""
        return self._notes.get(key)

    async def order(self, name: str, order: Order) -> None:
        """See :meth:`EventStore.order`; kept as long as the process."""
        async with self._ordering:
            orders = {**self._orders, name: order}
            held_before, held_after = self._are_held(), _hold(orders)
            if held_after and not held_before:
                self._held_since = order.at
            if held_before and not held_after:
                # Until all have their time, the events are held, so that none expires.
                await self.give_back_time(self._held_since, order.at)
            self._orders = orders

    async def orders(self) -> Mapping[str, Order]:
        """See :meth:`EventStore.orders`."""
        return dict(self._orders)

    async def sit(self, about: str) -> None:
        """See :meth:`EventStore.sit`."""
        self._about = about

    async def members(self) -> Mapping[int, str]:
        """See :meth:`EventStore.members`; there is no other daemon."""
        return {0: self._about}

    def _are_held(self) -> bool:
        return _hold(self._orders)

    def _known(self, event: Event) -> Receipt | None:
        """Return the receipt for an event whose idempotency key was used before."""
        if event.idempotency_key is None:
            return None
        known = self._keys.get((event.owner, event.idempotency_key))
        if known is None:
            return None
        return replay(event, payload_digest(event), known, self._rows[known].digest)

    def _accept(self, event: Event, *, owned: bool, beginning: bytes | None) -> int:
        place = (event.priority, next(self._sequence))
        row = _Row(event, place, owned=owned, beginning=beginning)
        if event.idempotency_key is not None:
            row.digest = payload_digest(event)
            self._keys[event.owner, event.idempotency_key] = event.event_id
        self._rows[event.event_id] = row
        self._accepted += 1
        self._counts[EventState.QUEUED] += 1
        self._queued[event.priority] += 1
        self._make_ready(row)
        heapq.heappush(self._deadlines, (event.deadline_at, event.event_id))
        # It is the last of its priority, so that nothing has to be searched.
        position = sum(n for priority, n in self._queued.items() if priority <= event.priority)
        row.ahead = position - 1
        return position

    def _record(self, row: _Row) -> EventRecord:
        return EventRecord(
            row.event,
            row.state,
            row.attempts,
            row.outcome,
            self._position(row) if row.state is EventState.QUEUED else None,
            row.backend if row.state is EventState.RUNNING else None,
        )

    def _position(self, row: _Row) -> int:
        queued = (r for r in self._rows.values() if r.state is EventState.QUEUED)
        return 1 + sum(r.place < row.place for r in queued)

    def _take_head(self, now: float, most: int) -> list[_Row]:
        """Take the first ``most`` events that are due, all of one priority, out of the heap."""
        head: dict[str, _Row] = {}
        priority = self._ready[0][0] if self._ready else None
        while self._ready and len(head) < most:
            if head and self._ready[0][0] != priority:
                break
            priority, _, event_id = heapq.heappop(self._ready)
            row = self._rows.get(event_id)
            if row is None or row.state is not EventState.QUEUED or row.due_at > now:
                continue
            if row.event.deadline_at <= now:
                continue  # left to expire(), which finds it among the deadlines
            head[event_id] = row
        return list(head.values())

    def _make_ready(self, row: _Row) -> None:
        heapq.heappush(self._ready, (*row.place, row.event.event_id))

    def _held(self, lease: Lease) -> _Row | None:
        row = self._rows.get(lease.event.event_id)
        if row is None or row.state is not EventState.RUNNING or row.token != lease.token:
            return None
        return row

    def _move(self, row: _Row, state: EventState) -> None:
        self._counts[row.state] -= 1
        self._queued[row.event.priority] -= row.state is EventState.QUEUED
        row.state = transition(row.state, state)
        self._counts[state] += 1
        self._queued[row.event.priority] += state is EventState.QUEUED

    def _end(self, row: _Row, state: EventState, outcome: Outcome, now: float) -> None:
        self._move(row, state)
        row.outcome = outcome
        row.attempts = outcome.attempts
        row.ended_at = now
        self._ended.append(row.event.event_id)
        while len(self._ended) > self._keep_ended:
            self._forget(self._ended.popleft())
        if len(self._deadlines) > 2 * self._counts[EventState.QUEUED] + _SLACK:
            self._drop_stale_deadlines()

    def _forget(self, event_id: str) -> None:
        event = self._rows.pop(event_id).event
        if event.idempotency_key is not None:
            del self._keys[event.owner, event.idempotency_key]

    def _drop_stale_deadlines(self) -> None:
        # Deadlines of ended events lie minutes ahead: left in, they would outgrow the queue.
        self._deadlines = [
            (row.event.deadline_at, event_id)
            for event_id, row in self._rows.items()
            if row.state not in FINAL_STATES
        ]
        heapq.heapify(self._deadlines)


def _hold(orders: Mapping[str, Order]) -> bool:
    return any(order.holds for order in orders.values())


def _summary(row: _Row) -> EventSummary:
    event, ended = row.event, row.outcome is not None
    return EventSummary(
        row.place[1],
        event.event_id,
        row.state,
        event.priority,
        event.owner,
        event.submitted_at,
        event.deadline_at,
        row.ahead,
        row.due_at,
        row.backend,
        row.claimed_at,
        row.ended_at if ended else None,
        row.outcome.code.value if isinstance(row.outcome, Failed) else None,
        row.overtaken,
    )


def _meets(summary: EventSummary, wanted: EventFilter) -> bool:
    after, before = wanted.submitted_after, wanted.submitted_before
    return (
        (not wanted.states or summary.state in wanted.states)
        and wanted.error in (None, summary.error)
        and wanted.owner in (None, summary.owner)
        and wanted.event_id in (None, summary.event_id)
        and (after is None or summary.submitted_at >= after)
        and (before is None or summary.submitted_at < before)
    )
