"""What the operations on the SQLite store have in hand while one transaction is open.

Operations (``intake.py``, ``leases.py``, ``endings.py``) are plain functions of a transaction. They
run in the writer's thread, many of them in one transaction, and check before they write: one that
raises a :class:`~ai_ticket_daemon.errors.TicketError` has written nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.store.sqlite.connection import row
from ai_ticket_daemon.store.sqlite.statements.codec import decode_event, encode

if TYPE_CHECKING:
    import apsw

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLock
    from ai_ticket_daemon.store.sqlite.statements.totals import Totals


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction: the connection, the totals and who is writing."""

    connection: apsw.Connection
    totals: Totals
    instance_lock: InstanceLock

    def content(self, seq: int) -> Event:
        """Return the event as it was submitted, with the deadline it has now."""
        found = row(
            self.connection,
            "SELECT event, deadline_at FROM event JOIN content USING (seq) WHERE seq = ?",
            seq,
        )
        if found is None:
            raise StoreUnavailable(f"the content of event {seq} is missing: restore a backup")
        return decode_event(*found)

    def end(
        self,
        seq: int,
        priority: int,
        before: EventState,
        after: EventState,
        outcome: Outcome,
        now: float,
    ) -> None:
        """Write how an event ended; the one place where an outcome is written."""
        self.totals.move(before, after, priority)
        self.connection.execute(
            "UPDATE event SET state = ?, ended_at = ?, error = ?, attempts = NULL, home = NULL, "
            "holder = NULL, lease_until = NULL WHERE seq = ?",
            (after, now, outcome.code if isinstance(outcome, Failed) else None, seq),
        )
        self.connection.execute(
            "INSERT INTO result (seq, outcome) VALUES (?, ?)", (seq, encode(outcome))
        )
