"""Reading the SQLite store; nothing here writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ai_ticket_daemon.events.limits import PRIORITY
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import (
    PAGE_LOOKS,
    Change,
    EventPage,
    EventRecord,
    EventSummary,
    Order,
)
from ai_ticket_daemon.store.sqlite.connection import row, rows, value
from ai_ticket_daemon.store.sqlite.statements.codec import (
    decode_attempts,
    decode_event,
    decode_outcome,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import apsw

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.store.port import EventFilter

ORDER_NOTE, MEMBER_NOTE = "order:", "member:"
"""How the keys of notes begin that hold an order, or what an instance says of itself."""

_decode_order = msgspec.json.Decoder(Order).decode

NO_PLACE = 2**62
"""Comes after every place an event can have."""

EXACT_POSITIONS = 1000
"""So far from the head of its priority an event's position is counted; beyond, interpolated."""


def get(connection: apsw.Connection, event_id: str) -> EventRecord | None:
    """See :meth:`EventStore.get`."""
    found = row(
        connection,
        "SELECT seq, state, priority, attempts, backend, event, deadline_at, outcome FROM event "
        "JOIN content USING (seq) LEFT JOIN result USING (seq) WHERE event_id = ?",
        event_id,
    )
    if found is None:
        return None
    seq, name, priority, attempts, backend, content, deadline_at, result = found
    state = EventState(name)
    outcome = None if result is None else decode_outcome(state, result)
    return EventRecord(
        decode_event(content, deadline_at),
        state,
        decode_attempts(attempts) if outcome is None else outcome.attempts,
        outcome,
        position(connection, seq, priority) if state is EventState.QUEUED else None,
        backend if state is EventState.RUNNING else None,
    )


def page(
    connection: apsw.Connection, *, wanted: EventFilter, below: int | None, limit: int
) -> EventPage:
    """See :meth:`EventStore.page`."""
    top = NO_PLACE if below is None else below
    floor: int | None = value(
        connection,
        "SELECT seq FROM event WHERE seq < ? ORDER BY seq DESC LIMIT 1 OFFSET ?",
        top,
        PAGE_LOOKS - 1,
    )
    conditions = {
        "error = ?": wanted.error,
        "owner = ?": wanted.owner,
        "submitted_at >= ?": wanted.submitted_after,
        "submitted_at < ?": wanted.submitted_before,
        "event_id = ?": wanted.event_id,
    }
    if wanted.event_id is not None:
        floor = None
    given = {text: asked for text, asked in conditions.items() if asked is not None}
    states = sorted(wanted.states)
    where = ["seq < ?", "seq >= ?", *given]
    if states:
        where.append(f"state IN ({', '.join('?' * len(states))})")
    found = rows(
        connection,
        "SELECT seq, event_id, state, priority, owner, submitted_at, deadline_at, ahead, due_at, "  # noqa: S608
        "backend, claimed_at, ended_at, error, ifnull(overtaken, 0) "
        f"FROM event WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?",
        top,
        floor or 0,
        *given.values(),
        *states,
        limit,
    )
    events = tuple(EventSummary(row[0], row[1], EventState(row[2]), *row[3:]) for row in found)
    return EventPage(events, events[-1].place if len(events) == limit else floor)


def outcomes(connection: apsw.Connection, event_ids: Collection[str]) -> Mapping[str, Outcome]:
    """See :meth:`EventStore.outcomes`."""
    ended = {}
    for event_id in event_ids:
        found = row(
            connection,
            "SELECT state, outcome FROM event JOIN result USING (seq) WHERE event_id = ?",
            event_id,
        )
        if found is not None:
            ended[event_id] = decode_outcome(EventState(found[0]), found[1])
    return ended


def position(connection: apsw.Connection, seq: int, priority: int) -> int:
    """Return the place of a queued event, counted from 1; retries that wait count as they stand.

    Counting costs as much as there is to count, so it stops at :data:`EXACT_POSITIONS`. Beyond, the
    place follows from where the event lies between the first and the last of its priority: exact
    while nothing behind the first was cancelled, and close otherwise.
    """
    totals = dict(rows(connection, "SELECT name, value FROM tally WHERE name LIKE 'queued:%'"))
    earlier: int = sum(totals.get(f"queued:{p}", 0) for p in range(priority))
    ahead: int = value(
        connection,
        "SELECT count(*) FROM (SELECT 1 FROM event INDEXED BY event_ready "
        "WHERE state = 'queued' AND due_at = 0 AND priority = ? AND seq < ? LIMIT ?)",
        priority,
        seq,
        EXACT_POSITIONS,
    )
    if ahead == EXACT_POSITIONS:
        ready = "SELECT seq FROM event WHERE state = 'queued' AND due_at = 0 AND priority = ?"
        first = value(connection, f"{ready} ORDER BY seq LIMIT 1", priority)
        last = value(connection, f"{ready} ORDER BY seq DESC LIMIT 1", priority)
        share = (seq - first) / max(1, last - first)
        ahead = max(ahead, round(share * (totals.get(f"queued:{priority}", 1) - 1)))
    return earlier + ahead + 1


def changes(connection: apsw.Connection, begin: float, end: float) -> list[Change]:
    """See :meth:`EventStore.changes`."""
    found = rows(
        connection,
        "SELECT at, text FROM change WHERE at >= ? AND at <= ? ORDER BY id",
        begin,
        end,
    )
    return [Change(at, text) for at, text in found]


def note(connection: apsw.Connection, key: str) -> str | None:
    """See :meth:`EventStore.recall`."""
    found: str | None = value(connection, "SELECT value FROM note WHERE key = ?", key)
    return found


def next_due(connection: apsw.Connection) -> float | None:
    """See :meth:`EventStore.next_due`."""
    if value(connection, "SELECT 1 FROM event WHERE state = 'queued' AND due_at = 0 LIMIT 1"):
        return 0.0
    due_at: float | None = value(connection, _FIRST_LATER.format("due_at"))
    return due_at


def oldest_queued_at(connection: apsw.Connection) -> float | None:
    """See :meth:`EventStore.oldest_queued_at`."""
    found = [value(connection, _FIRST_LATER.format("submitted_at"))]
    found += [
        value(
            connection,
            "SELECT submitted_at FROM event WHERE state = 'queued' AND due_at = 0 AND priority = ? "
            "ORDER BY seq LIMIT 1",
            priority,
        )
        for priority in range(PRIORITY.most + 1)
    ]
    return min((at for at in found if at is not None), default=None)


def has_others(connection: apsw.Connection, instance: int) -> bool:
    """Tell whether daemons of other instances run events, or keep some for their own clients."""
    running = "SELECT 1 FROM event WHERE state = 'running' AND holder <> ? LIMIT 1"
    kept = "SELECT 1 FROM event WHERE state = 'queued' AND home IS NOT NULL AND home <> ? LIMIT 1"
    return any(value(connection, query, instance) is not None for query in (running, kept))


def has_late(connection: apsw.Connection, now: float) -> bool:
    """Tell whether the deadline of a queued event has passed that may expire now."""
    waited_for = "AND home IS NOT NULL" if are_held(connection) else ""
    query = f"SELECT 1 FROM event WHERE state = 'queued' {waited_for} AND deadline_at <= ? LIMIT 1"  # noqa: S608
    return value(connection, query, now) is not None


def has_old(connection: apsw.Connection, before: float) -> bool:
    """Tell whether an event ended before that moment."""
    query = "SELECT 1 FROM event WHERE ended_at IS NOT NULL AND ended_at < ? LIMIT 1"
    return value(connection, query, before) is not None


def orders(connection: apsw.Connection) -> Mapping[str, Order]:
    """See :meth:`EventStore.orders`."""
    return {name: _decode_order(text) for name, text in _notes(connection, ORDER_NOTE)}


def are_held(connection: apsw.Connection) -> bool:
    """Tell whether an order keeps events from being started."""
    return any(order.holds for order in orders(connection).values())


def members(connection: apsw.Connection) -> Mapping[int, str]:
    """Return what the last daemon of each instance number said of itself, dead or alive."""
    return {int(instance): about for instance, about in _notes(connection, MEMBER_NOTE)}


def _notes(connection: apsw.Connection, prefix: str) -> list[tuple[str, str]]:
    """Return the notes whose keys begin with ``prefix``, by the rest of their keys."""
    found = rows(
        connection,
        "SELECT substr(key, ?), value FROM note WHERE key >= ? AND key < ?",
        len(prefix) + 1,
        prefix,
        prefix + "\x7f",
    )
    return [(name, text) for name, text in found]


_FIRST_LATER = "SELECT min({}) FROM event WHERE state = 'queued' AND due_at > 0"
