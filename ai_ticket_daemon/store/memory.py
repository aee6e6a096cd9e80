"""The event store in memory: lives as long as the process; the fake that tests use, too."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import FINAL_STATES, EventState, transition
from ai_ticket_daemon.store.port import EventRecord, Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome


_SLACK = 1024
"""How many stale entries the heap of deadlines may hold before it is cleaned."""


@dataclass(slots=True)
class _Row:
    event: Event
    place: tuple[int, int]
    state: EventState = EventState.QUEUED
    due_at: float = 0.0
    token: int = 0
    attempts: tuple[Attempt, ...] = ()
    outcome: Outcome | None = None


class MemoryStore:
    """Keeps events in dictionaries and heaps.

    The heaps may hold stale entries (an event cancelled while it waited); whoever takes an entry
    out checks the row it points to, so that cancelling costs no search.

    Args:
        max_queued: how many events may wait, asked at each submission.
        keep_ended: how many ended events are remembered; the oldest are forgotten first.
    """

    def __init__(
        self, *, max_queued: Callable[[], int] = lambda: 100_000, keep_ended: int = 1000
    ) -> None:
        self._max_queued = max_queued
        self._keep_ended = keep_ended
        self._rows: dict[str, _Row] = {}
        self._ready: list[tuple[int, int, str]] = []
        self._later: list[tuple[float, str]] = []
        self._deadlines: list[tuple[float, str]] = []
        self._ended: deque[str] = deque()
        self._counts: Counter[EventState] = Counter()
        self._sequence = count()
        self._tokens = count(1)

    async def submit(self, events: Sequence[Event]) -> None:
        """See :meth:`EventStore.submit`."""
        limit = self._max_queued()
        if self._counts[EventState.QUEUED] + len(events) > limit:
            raise RequestRefused(
                ErrorCode.QUEUE_FULL,
                f"The queue holds its limit of {limit} waiting events; send the event again later.",
                details={"max_queued": limit},
                retry_after_seconds=5.0,
            )
        for event in events:
            row = _Row(event, (event.priority, next(self._sequence)))
            self._rows[event.event_id] = row
            self._counts[EventState.QUEUED] += 1
            self._make_ready(row)
            heapq.heappush(self._deadlines, (event.deadline_at, event.event_id))

    async def claim(self, now: float) -> Lease | None:
        """See :meth:`EventStore.claim`."""
        while self._later and self._later[0][0] <= now:
            _, event_id = heapq.heappop(self._later)
            row = self._rows.get(event_id)
            if row is not None and row.state is EventState.QUEUED and row.due_at <= now:
                self._make_ready(row)
        while self._ready:
            *_, event_id = heapq.heappop(self._ready)
            row = self._rows.get(event_id)
            if row is None or row.state is not EventState.QUEUED or row.due_at > now:
                continue
            if row.event.deadline_at <= now:
                continue  # left to expire(), which finds it among the deadlines
            self._move(row, EventState.RUNNING)
            row.token = next(self._tokens)
            return Lease(row.event, row.token, row.attempts)
        return None

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

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome) -> bool:
        """See :meth:`EventStore.complete`."""
        row = self._held(lease)
        if row is None:
            return False
        self._end(row, state, outcome)
        return True

    async def release(self, lease: Lease, *, due_at: float, attempts: Sequence[Attempt]) -> bool:
        """See :meth:`EventStore.release`."""
        row = self._held(lease)
        if row is None:
            return False
        self._move(row, EventState.QUEUED)
        row.due_at = due_at
        row.attempts = tuple(attempts)
        heapq.heappush(self._later, (due_at, row.event.event_id))
        return True

    async def cancel(self, event_id: str, outcome: Outcome) -> EventState | None:
        """See :meth:`EventStore.cancel`."""
        row = self._rows.get(event_id)
        if row is None:
            return None
        before = row.state
        if before not in FINAL_STATES:
            self._end(row, EventState.CANCELLED, outcome)
        return before

    async def expire(self, now: float) -> list[str]:
        """See :meth:`EventStore.expire`."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, event_id = heapq.heappop(self._deadlines)
            row = self._rows.get(event_id)
            if row is not None and row.state is EventState.QUEUED:
                self._end(row, EventState.EXPIRED, expired_in_queue(row.event, row.attempts))
                expired.append(event_id)
        return expired

    async def get(self, event_id: str) -> EventRecord | None:
        """See :meth:`EventStore.get`."""
        row = self._rows.get(event_id)
        if row is None:
            return None
        position = None
        if row.state is EventState.QUEUED:
            ahead = (r for r in self._rows.values() if r.state is EventState.QUEUED)
            position = 1 + sum(r.place < row.place for r in ahead)
        return EventRecord(row.event, row.state, row.attempts, row.outcome, position)

    async def counts(self) -> Mapping[EventState, int]:
        """See :meth:`EventStore.counts`; ended events are counted although long forgotten."""
        return {state: self._counts[state] for state in EventState}

    async def oldest_queued_at(self) -> float | None:
        """See :meth:`EventStore.oldest_queued_at`."""
        queued = (r for r in self._rows.values() if r.state is EventState.QUEUED)
        return min((r.event.submitted_at for r in queued), default=None)

    def _make_ready(self, row: _Row) -> None:
        heapq.heappush(self._ready, (*row.place, row.event.event_id))

    def _held(self, lease: Lease) -> _Row | None:
        row = self._rows.get(lease.event.event_id)
        if row is None or row.state is not EventState.RUNNING or row.token != lease.token:
            return None
        return row

    def _move(self, row: _Row, state: EventState) -> None:
        self._counts[row.state] -= 1
        row.state = transition(row.state, state)
        self._counts[state] += 1

    def _end(self, row: _Row, state: EventState, outcome: Outcome) -> None:
        self._move(row, state)
        row.outcome = outcome
        row.attempts = outcome.attempts
        self._ended.append(row.event.event_id)
        while len(self._ended) > self._keep_ended:
            del self._rows[self._ended.popleft()]
        if len(self._deadlines) > 2 * self._counts[EventState.QUEUED] + _SLACK:
            self._drop_stale_deadlines()

    def _drop_stale_deadlines(self) -> None:
        # Deadlines of ended events lie minutes ahead: left in, they would outgrow the queue.
        self._deadlines = [
            (row.event.deadline_at, event_id)
            for event_id, row in self._rows.items()
            if row.state not in FINAL_STATES
        ]
        heapq.heapify(self._deadlines)


def expired_in_queue(event: Event, attempts: tuple[Attempt, ...]) -> Failed:
    """Return the outcome of an event whose deadline passed while it waited."""
    waited = event.deadline_at - event.submitted_at
    last = next((a for a in reversed(attempts) if a.error is not None), None)
    details = {} if last is None else {"last_error": last.error, "last_message": last.message}
    return Failed(
        ErrorCode.DEADLINE_EXCEEDED,
        f"No backend was free within the {waited:g} s this event had; allow it more time with "
        "timeout_seconds or add a backend.",
        details or None,
        attempts=attempts,
    )
