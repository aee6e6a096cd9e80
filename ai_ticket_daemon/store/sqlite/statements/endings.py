"""Ending events without a worker, putting failed ones back, and forgetting the old ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.event import text_bytes, without_text
from ai_ticket_daemon.events.state import FINAL_STATES, EventState
from ai_ticket_daemon.store.port import MAX_EXPIRED_BYTES, EventRecord
from ai_ticket_daemon.store.rules import expired_in_queue, fresh, retried_event
from ai_ticket_daemon.store.sqlite.connection import row, rows, value
from ai_ticket_daemon.store.sqlite.statements.codec import decode_attempts, encode
from ai_ticket_daemon.store.sqlite.statements.queries import are_held, get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction


def cancel(
    transaction: Transaction,
    *,
    event_id: str,
    now: float,
    outcome: Callable[[tuple[Attempt, ...]], Outcome],
) -> tuple[EventState, EventRecord] | None:
    """See :meth:`EventStore.cancel`."""
    record = get(transaction.connection, event_id)
    if record is None:
        return None
    record = replace(record, event=without_text(record.event))
    if record.state in FINAL_STATES:
        return record.state, record
    ended = outcome(record.attempts)
    seq = _seq(transaction, event_id)
    after = EventState.CANCELLED
    transaction.end(seq, record.event.priority, record.state, after, ended, now)
    return record.state, EventRecord(record.event, after, ended.attempts, ended)


def expire(
    transaction: Transaction, *, now: float, limit: int, held: str | None
) -> list[EventRecord]:
    """See :meth:`EventStore.expire`."""
    # What a client waits for is few; what it does not wait for may be the whole queue.
    index, waited_for = "event_deadline", ""
    if are_held(transaction.connection):
        index, waited_for = "event_home", "AND home IS NOT NULL"
    late = rows(
        transaction.connection,
        f"SELECT seq, priority, attempts FROM event INDEXED BY {index} "  # noqa: S608
        f"WHERE state = 'queued' {waited_for} AND deadline_at <= ? ORDER BY deadline_at LIMIT ?",
        now,
        limit,
    )
    expired: list[EventRecord] = []
    size_bytes = 0
    for seq, priority, attempts in late:
        if size_bytes >= MAX_EXPIRED_BYTES:
            break
        event = transaction.content(seq)
        outcome = expired_in_queue(event, decode_attempts(attempts), held)
        transaction.end(seq, priority, EventState.QUEUED, EventState.EXPIRED, outcome, now)
        size_bytes += text_bytes(event)
        expired.append(EventRecord(event, EventState.EXPIRED, outcome.attempts, outcome))
    return expired


def retry(transaction: Transaction, *, event_id: str, now: float) -> EventRecord | None:
    """See :meth:`EventStore.retry`."""
    connection = transaction.connection
    record = get(connection, event_id)
    if record is None or record.state is not EventState.FAILED:
        return record
    seq = _seq(transaction, event_id)
    event = retried_event(record.event, now)
    transaction.totals.move(EventState.FAILED, EventState.QUEUED, event.priority)
    connection.execute("DELETE FROM result WHERE seq = ?", (seq,))
    connection.execute("UPDATE content SET event = ? WHERE seq = ?", (encode(event), seq))
    connection.execute(
        "UPDATE event SET state = 'queued', due_at = 0, ended_at = NULL, error = NULL, "
        "deadline_at = ?, attempts = ?, overtaken = NULL, overtaken_at = NULL WHERE seq = ?",
        (event.deadline_at, encode(fresh(record.attempts)), seq),
    )
    return get(connection, event_id)


def give_back_time(transaction: Transaction, *, begin: float, end: float) -> int:
    """See :meth:`EventStore.give_back_time`; the content keeps the deadline it came with."""
    transaction.connection.execute(
        "UPDATE event SET deadline_at = deadline_at + (?2 - max(?1, submitted_at)) "
        "WHERE state = 'queued' AND submitted_at < ?2 AND ?1 < ?2",
        (begin, end),
    )
    return transaction.connection.changes()


def prune(transaction: Transaction, *, before: float, limit: int) -> int:
    """See :meth:`EventStore.prune`."""
    connection = transaction.connection
    old = rows(
        connection,
        "SELECT seq, state FROM event INDEXED BY event_ended "
        "WHERE ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT ?",
        before,
        limit,
    )
    return _forget(transaction, [(seq, state) for seq, state in old])


def forget(transaction: Transaction, *, event_ids: Sequence[str]) -> int:
    """See :meth:`EventStore.forget`."""
    query = "SELECT seq, state FROM event WHERE event_id = ? AND ended_at IS NOT NULL"
    found = (row(transaction.connection, query, event_id) for event_id in event_ids)
    return _forget(transaction, [(seq, state) for seq, state in filter(None, found)])


def _forget(transaction: Transaction, ended: Sequence[tuple[int, str]]) -> int:
    for table in ("event", "content", "result"):
        transaction.connection.executemany(
            f"DELETE FROM {table} WHERE seq = ?",  # noqa: S608
            [(seq,) for seq, _ in ended],
        )
    for _, state in ended:
        transaction.totals.add(f"pruned:{state}", 1)
    return len(ended)


def _seq(transaction: Transaction, event_id: str) -> int:
    seq: int = value(transaction.connection, "SELECT seq FROM event WHERE event_id = ?", event_id)
    return seq
