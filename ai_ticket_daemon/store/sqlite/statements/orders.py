"""Keeping the standing orders in the SQLite store: what holds for all daemons that share it.

While an order holds the queue, the clock of the events in it stands still: when the last such order
is taken back, their deadlines move by the time they were held, in the transaction that takes it
back, so that no daemon ever sees one without the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ai_ticket_daemon.store.sqlite.connection import value
from ai_ticket_daemon.store.sqlite.statements.endings import give_back_time
from ai_ticket_daemon.store.sqlite.statements.queries import MEMBER_NOTE, ORDER_NOTE, are_held

if TYPE_CHECKING:
    import apsw

    from ai_ticket_daemon.store.port import Order
    from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction

_HELD_SINCE = "held_since"


def order(transaction: Transaction, *, name: str, order: Order) -> None:
    """See :meth:`EventStore.order`."""
    connection = transaction.connection
    held_before = are_held(connection)
    _note(connection, ORDER_NOTE + name, msgspec.json.encode(order).decode())
    held_after = are_held(connection)
    if held_after and not held_before:
        _note(connection, _HELD_SINCE, repr(order.at))
    if held_before and not held_after:
        since = value(connection, "DELETE FROM note WHERE key = ? RETURNING value", _HELD_SINCE)
        if since is not None:
            give_back_time(transaction, begin=float(since), end=order.at)


def sit(transaction: Transaction, *, about: str) -> None:
    """See :meth:`EventStore.sit`."""
    _note(transaction.connection, f"{MEMBER_NOTE}{transaction.instance_lock.number}", about)


def _note(connection: apsw.Connection, key: str, text: str) -> None:
    connection.execute("INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (key, text))
