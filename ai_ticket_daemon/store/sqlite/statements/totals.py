"""The store's running totals, kept beside the events so that counting never reads them.

Names: ``accepted``; each state; ``queued:P`` for the queued events of priority P; ``pruned:STATE``
for ended events that were forgotten. They change in the same transaction as the events, so they
agree with them on disk at every moment; ``audit.py`` recounts to prove it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.state import EventState, transition
from ai_ticket_daemon.store.port import Counts
from ai_ticket_daemon.store.sqlite.connection import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import apsw

ACCEPTED = "accepted"


class Totals:
    """The totals, as transactions of one connection see and change them.

    Args:
        connection: where they are kept.
        version: the file's version they were read at; another daemon's write makes another one.
    """

    def __init__(self, connection: apsw.Connection, version: int = 0) -> None:
        self.version = version
        self._connection = connection
        self._values: dict[str, int] = dict(rows(connection, "SELECT name, value FROM tally"))
        self._changes: dict[str, int] = {}

    def get(self, name: str) -> int:
        """Return one total."""
        return self._values.get(name, 0)

    def add(self, name: str, amount: int) -> None:
        """Change one total."""
        self._values[name] = self.get(name) + amount
        self._changes[name] = self._changes.get(name, 0) + amount

    def accept(self, priorities: Sequence[int]) -> list[int]:
        """Count so many more accepted events, and return the position of each in the queue."""
        queued = [self.get(f"queued:{p}") for p in range(max(priorities, default=0) + 1)]
        positions = []
        for priority in priorities:
            queued[priority] += 1
            positions.append(sum(queued[: priority + 1]))
        self.add(ACCEPTED, len(priorities))
        self.add(EventState.QUEUED, len(priorities))
        for priority, number in Counter(priorities).items():
            self.add(f"queued:{priority}", number)
        return positions

    def move(self, before: EventState, after: EventState, priority: int) -> None:
        """Count that an event of ``priority`` goes from one state to another."""
        transition(before, after)
        self.add(before, -1)
        self.add(after, 1)
        if before is EventState.QUEUED:
            self.add(f"queued:{priority}", -1)
        if after is EventState.QUEUED:
            self.add(f"queued:{priority}", 1)

    def counts(self) -> Counts:
        """Return the totals by state."""
        return Counts(self.get(ACCEPTED), {state: self.get(state) for state in EventState})

    def save(self) -> None:
        """Write what has changed; part of the transaction."""
        changes = [(name, amount) for name, amount in self._changes.items() if amount]
        self._changes.clear()
        if changes:
            self._connection.executemany(
                "INSERT INTO tally (name, value) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                changes,
            )


def read_counts(connection: apsw.Connection) -> Counts:
    """Return the totals by state as they are on disk."""
    return Totals(connection).counts()
