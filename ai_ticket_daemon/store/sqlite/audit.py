"""Recounting the store: whether every event that was ever accepted is somewhere, and just once.

Only reads, in one transaction, so daemons may go on working meanwhile.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apsw

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import FINAL_STATES, EventState
from ai_ticket_daemon.store.sqlite.connection import rows, value
from ai_ticket_daemon.store.sqlite.faults import explain
from ai_ticket_daemon.store.sqlite.schema import LOCKED_MILLISECONDS, refuse_foreign, version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_DAMAGE = {
    "ended events have no result": """
        SELECT count(*) FROM event LEFT JOIN result USING (seq)
        WHERE state NOT IN ('queued', 'running') AND outcome IS NULL""",
    "events that have not ended have a result": """
        SELECT count(*) FROM event JOIN result USING (seq) WHERE state IN ('queued', 'running')""",
    "events have no content": """
        SELECT count(*) FROM event LEFT JOIN content USING (seq) WHERE content.event IS NULL""",
    "running events are held by no daemon": """
        SELECT count(*) FROM event
        WHERE state = 'running' AND (holder IS NULL OR lease_until IS NULL)""",
    "ended events have no time of their end": """
        SELECT count(*) FROM event WHERE state NOT IN ('queued', 'running') AND ended_at IS NULL""",
    "contents belong to no event": """
        SELECT count(*) FROM content WHERE seq NOT IN (SELECT seq FROM event)""",
    "results belong to no event": """
        SELECT count(*) FROM result WHERE seq NOT IN (SELECT seq FROM event)""",
}
"""What must not be: for each, the question how many there are."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was counted. ``states`` includes the ``pruned`` ones; ``problems`` are sentences."""

    accepted: int
    states: Mapping[EventState, int]
    pruned: int
    problems: tuple[str, ...]

    @property
    def difference(self) -> int:
        """Accepted events that are in no state."""
        return self.accepted - sum(self.states.values())

    def __str__(self) -> str:
        """Return the figures and the problems, a line each."""
        lines = [f"accepted    {self.accepted:>12}"]
        lines += [f"{state:<12}{self.states[state]:>12}" for state in EventState]
        lines += [f"difference  {self.difference:>12}"]
        lines += [f"forgotten   {self.pruned:>12}   (ended, part of the figures above)"]
        lines += [f"wrong: {problem}" for problem in self.problems]
        return "\n".join([*lines, *([] if self.problems else ["The store is in order."])])


def audit_file(path: Path) -> Audit:
    """Recount the store in the file ``path``.

    Raises:
        StoreUnavailable: it cannot be opened, is damaged, or is no store.
    """
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            connection.set_busy_timeout(LOCKED_MILLISECONDS)
            refuse_foreign(connection)
            return audit(connection)
    except (apsw.Error, StoreUnavailable) as error:
        raise StoreUnavailable(f"{path}: {explain(error)}") from error


def audit(connection: apsw.Connection) -> Audit:
    """Recount the store behind ``connection``.

    Raises:
        StoreUnavailable: no daemon has made its tables yet.
    """
    if version(connection) == 0:
        raise StoreUnavailable("the file is empty: no daemon has used it yet")
    connection.execute("BEGIN")
    try:
        kept = dict(rows(connection, "SELECT state, count(*) FROM event GROUP BY state"))
        totals = dict(rows(connection, "SELECT name, value FROM tally"))
        by_priority = dict(
            rows(
                connection,
                "SELECT 'queued:' || priority, count(*) FROM event WHERE state = 'queued' "
                "GROUP BY priority",
            )
        )
        damage = [
            f"{number} {what}"
            for what, query in _DAMAGE.items()
            if (number := value(connection, query))
        ]
    finally:
        connection.execute("ROLLBACK")
    pruned = {state: totals.get(f"pruned:{state}", 0) for state in FINAL_STATES}
    states = {state: kept.pop(state, 0) + pruned.get(state, 0) for state in EventState}
    damage += [
        f"{number} events are in the unknown state {name!r}" for name, number in kept.items()
    ]
    found = Audit(totals.get("accepted", 0), states, sum(pruned.values()), ())
    if found.difference:
        damage.append(f"{found.difference} accepted events are in no state")
    damage += _disagreements(totals, states, by_priority)
    return Audit(found.accepted, states, found.pruned, tuple(damage))


def _disagreements(
    totals: Mapping[str, int], states: Mapping[EventState, int], by_priority: Mapping[str, int]
) -> Iterator[str]:
    """Yield a sentence for each running total that is not what was counted."""
    counted = {state.value: number for state, number in states.items()} | dict(by_priority)
    names = [*states, *sorted({*by_priority, *(n for n in totals if n.startswith("queued:"))})]
    for name in map(str, names):
        says, were = totals.get(name, 0), counted.get(name, 0)
        if says != were:
            yield f"the total {name!r} says {says}, counted were {were}"
