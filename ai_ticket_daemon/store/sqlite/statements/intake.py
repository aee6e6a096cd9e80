"""Accepting events into the SQLite store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.events.event import payload_digest
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import Receipt
from ai_ticket_daemon.store.rules import check_room, replay
from ai_ticket_daemon.store.sqlite.connection import row, value
from ai_ticket_daemon.store.sqlite.statements.codec import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.store.port import Beginnings
    from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction


def submit(
    transaction: Transaction,
    events: Sequence[Event],
    *,
    owned: bool,
    beginnings: Beginnings,
    max_queued: int,
) -> list[Receipt]:
    """See :meth:`EventStore.submit`."""
    digests = [None if e.idempotency_key is None else payload_digest(e) for e in events]
    receipts: list[Receipt | None] = [None] * len(events)
    fresh = []
    earlier: dict[tuple[str, str | None], tuple[str, bytes | None]] = {}
    for index, (event, digest) in enumerate(zip(events, digests, strict=True)):
        if digest is not None:
            key = (event.owner, event.idempotency_key)
            found = earlier.get(key) or _find(transaction, event)
            if found is not None:
                receipts[index] = replay(event, digest, *found)
                continue
            earlier[key] = (event.event_id, digest)
        fresh.append(index)
    totals = transaction.totals
    check_room(totals.get(EventState.QUEUED), len(fresh), max_queued)
    seq = (value(transaction.connection, "SELECT max(seq) FROM event") or 0) + 1
    owner_instance = transaction.instance_lock.number if owned else None
    positions = totals.accept([events[index].priority for index in fresh])
    rows, contents = [], []
    for place, (index, position) in enumerate(zip(fresh, positions, strict=True), seq):
        event = events[index]
        rows.append(
            (
                place,
                event.event_id,
                event.priority,
                event.submitted_at,
                event.deadline_at,
                owner_instance,
                event.owner,
                event.idempotency_key,
                digests[index],
                position - 1,
                None if beginnings is None else beginnings[index],
            )
        )
        contents.append((place, encode(event)))
        receipts[index] = Receipt(event.event_id, position)
    transaction.connection.executemany(
        "INSERT INTO event (seq, event_id, state, priority, submitted_at, deadline_at, due_at, "
        "home, token, owner, idempotency_key, digest, ahead, beginning) "
        "VALUES (?, ?, 'queued', ?, ?, ?, 0, ?, 0, ?, ?, ?, ?, ?)",
        rows,
    )
    transaction.connection.executemany("INSERT INTO content (seq, event) VALUES (?, ?)", contents)
    return [receipt for receipt in receipts if receipt is not None]


def _find(transaction: Transaction, event: Event) -> tuple[str, bytes | None] | None:
    found = row(
        transaction.connection,
        "SELECT event_id, digest FROM event WHERE owner = ? AND idempotency_key = ?",
        event.owner,
        event.idempotency_key,
    )
    return None if found is None else (found[0], found[1])
