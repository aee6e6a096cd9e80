"""Handing events to workers and taking them back, in the SQLite store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.order import Candidate, choose_next
from ai_ticket_daemon.store.port import CutOff, Lease
from ai_ticket_daemon.store.rules import lost_attempt
from ai_ticket_daemon.store.sqlite.connection import rows, value
from ai_ticket_daemon.store.sqlite.statements.codec import decode_attempts, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import apsw

    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.store.port import Preference
    from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction

NEVER = float("inf")

MOST_CUT_OFF = 1000
"""Of how many requests that were cut off is told."""

_RELEASE_OWNER = "UPDATE event SET home = NULL WHERE state = 'queued' AND home = ?"

RESTARTED = "The daemon was restarted; the attempt under way was put back."
TAKEN_OVER = "Its daemon was gone, or lost touch with the store; another one put the attempt back."


def claim(
    transaction: Transaction,
    *,
    now: float,
    backend: str,
    until: float,
    prefer: Preference | None = None,
) -> tuple[Lease | None, float]:
    """See :meth:`EventStore.claim`; also returns when a claim can find something next."""
    connection, lock = transaction.connection, transaction.instance_lock
    connection.execute(
        "UPDATE event SET due_at = 0 WHERE state = 'queued' AND due_at > 0 AND due_at <= ?", (now,)
    )
    head = rows(
        connection,
        "SELECT seq, priority, token, attempts, deadline_at, beginning, overtaken, overtaken_at "
        "FROM event INDEXED BY event_ready "
        "WHERE state = 'queued' AND due_at = 0 AND (home IS NULL OR home = ?) AND deadline_at > ? "
        "ORDER BY priority, seq LIMIT ?",
        lock.number,
        now,
        1 if prefer is None else prefer.looks,
    )
    if not head:
        due_at = value(
            connection, "SELECT min(due_at) FROM event WHERE state = 'queued' AND due_at > 0"
        )
        return None, NEVER if due_at is None else due_at
    chosen = 0 if prefer is None else _choose(head, prefer, now)
    seq, priority, token, attempts, _, beginning, overtaken, _ = head[chosen]
    if chosen:
        connection.executemany(
            "UPDATE event SET overtaken = ifnull(overtaken, 0) + 1, "
            "overtaken_at = ifnull(overtaken_at, ?) WHERE seq = ?",
            [(now, other[0]) for other in head[:chosen]],
        )
    transaction.totals.move(EventState.QUEUED, EventState.RUNNING, priority)
    connection.execute(
        "UPDATE event SET state = 'running', holder = ?, token = ?, backend = ?, claimed_at = ?, "
        "lease_until = ? WHERE seq = ?",
        (lock.number, token + 1, backend, now, until, seq),
    )
    lease = Lease(
        transaction.content(seq),
        token + 1,
        decode_attempts(attempts),
        None if prefer is None else beginning,
        ahead_of=chosen,
        overtaken=overtaken or 0,
    )
    return lease, now


def _choose(head: Sequence[Sequence[Any]], prefer: Preference, now: float) -> int:
    """Return the index of the row that is next; a retry waits its turn."""
    priority = head[0][1]
    return choose_next(
        [
            Candidate(deadline_at, None if attempts else beginning, overtaken or 0, overtaken_at)
            for _, other, _, attempts, deadline_at, beginning, overtaken, overtaken_at in head
            if other == priority
        ],
        prefer,
        now,
    )


def extend(transaction: Transaction, *, until: float) -> Mapping[str, int]:
    """See :meth:`EventStore.extend`."""
    held = "WHERE state = 'running' AND holder = ?"
    connection, lock = transaction.connection, transaction.instance_lock
    connection.execute(f"UPDATE event SET lease_until = ? {held}", (until, lock.number))  # noqa: S608
    return dict(rows(connection, f"SELECT event_id, token FROM event {held}", lock.number))  # noqa: S608


def complete(
    transaction: Transaction, *, lease: Lease, state: EventState, outcome: Outcome, now: float
) -> bool:
    """See :meth:`EventStore.complete`."""
    seq = _held(transaction, lease)
    if seq is None:
        return _was_written(transaction, lease, outcome)
    transaction.end(seq, lease.event.priority, EventState.RUNNING, state, outcome, now)
    return True


def release(
    transaction: Transaction, *, lease: Lease, due_at: float, attempts: Sequence[Attempt]
) -> bool:
    """See :meth:`EventStore.release`."""
    seq = _held(transaction, lease)
    if seq is None:
        return False
    _queue(transaction, seq, lease.event.priority, due_at, attempts)
    return True


class Recovered(NamedTuple):
    """What was found of a daemon that is gone: the events that ran, the clients that waited."""

    event_ids: list[str]
    requests: list[CutOff]


def release_owner(transaction: Transaction) -> None:
    """See :meth:`EventStore.release_owner`."""
    transaction.connection.execute(_RELEASE_OWNER, (transaction.instance_lock.number,))


def recover_own(transaction: Transaction, *, now: float) -> Recovered:
    """Queue what the earlier holder of this instance lock ran; its clients are gone, too."""
    instance = transaction.instance_lock.number
    return _recover(transaction, instance, now, expired_only=False, because=RESTARTED)


def recover_others(transaction: Transaction, *, now: float) -> Recovered:
    """See :meth:`EventStore.recover`."""
    connection, lock = transaction.connection, transaction.instance_lock
    others = rows(
        connection,
        "SELECT DISTINCT holder FROM event WHERE state = 'running' AND holder <> ?1 UNION "
        "SELECT DISTINCT home FROM event WHERE state = 'queued' AND home IS NOT NULL "
        "AND home <> ?1",
        lock.number,
    )
    found = Recovered([], [])
    for (other,) in others:
        event_ids, requests = _recover(
            transaction, other, now, expired_only=not lock.is_free(other), because=TAKEN_OVER
        )
        found.event_ids.extend(event_ids)
        found.requests.extend(requests)
    return found


def _recover(
    transaction: Transaction, instance: int, now: float, *, expired_only: bool, because: str
) -> Recovered:
    connection = transaction.connection
    requests: list[CutOff] = []
    if not expired_only:
        requests = _cut_off(connection, instance)
        connection.execute(_RELEASE_OWNER, (instance,))
        connection.execute(
            "UPDATE event SET home = NULL WHERE state = 'running' AND holder = ?", (instance,)
        )
    lost = rows(
        connection,
        "SELECT seq, event_id, priority, attempts, backend, claimed_at FROM event "
        "WHERE state = 'running' AND holder = ? AND lease_until <= ?",
        instance,
        now if expired_only else NEVER,
    )
    for seq, _, priority, attempts, backend, claimed_at in lost:
        attempt = lost_attempt(backend, claimed_at, now, because=because)
        _queue(transaction, seq, priority, 0.0, (*decode_attempts(attempts), attempt))
    return Recovered([event_id for _, event_id, *_ in lost], requests)


def _cut_off(connection: apsw.Connection, instance: int) -> list[CutOff]:
    """Return the requests whose clients waited at an instance; a batch is one request."""
    found = rows(
        connection,
        "SELECT json_extract(CAST(event AS TEXT), '$.trace_context') AS context, "
        "min(submitted_at), CASE count(*) WHEN 1 THEN min(event_id) END "
        "FROM event JOIN content USING (seq) WHERE home = ?1 AND "
        "(state = 'queued' OR state = 'running' AND holder = ?1) GROUP BY context LIMIT ?2",
        instance,
        MOST_CUT_OFF,
    )
    return [CutOff(json.loads(context), began_at, i) for context, began_at, i in found]


def _queue(
    transaction: Transaction, seq: int, priority: int, due_at: float, attempts: Sequence[Attempt]
) -> None:
    transaction.totals.move(EventState.RUNNING, EventState.QUEUED, priority)
    transaction.connection.execute(
        "UPDATE event SET state = 'queued', due_at = ?, attempts = ?, home = "
        "CASE WHEN home = ? THEN home END, holder = NULL, lease_until = NULL WHERE seq = ?",
        (due_at, encode(attempts) if attempts else None, transaction.instance_lock.number, seq),
    )


def _was_written(transaction: Transaction, lease: Lease, outcome: Outcome) -> bool:
    """Tell whether this lease wrote this outcome before: its worker could not know that it did."""
    written: bytes | None = value(
        transaction.connection,
        "SELECT outcome FROM event JOIN result USING (seq) WHERE event_id = ? AND token = ?",
        lease.event.event_id,
        lease.token,
    )
    return written == encode(outcome)


def _held(transaction: Transaction, lease: Lease) -> int | None:
    seq: int | None = value(
        transaction.connection,
        "SELECT seq FROM event WHERE event_id = ? AND state = 'running' AND token = ? "
        "AND holder = ?",
        lease.event.event_id,
        lease.token,
        transaction.instance_lock.number,
    )
    return seq
