"""The event store as the pipeline sees it; ``memory.py`` implements it.

Every method either did all of its work or raised
:class:`~ai_ticket_daemon.errors.StoreUnavailable` and did nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to end one event, held by one worker.

    ``token`` tells this holding of the event from earlier and later ones. ``attempts`` are those
    made under earlier leases.
    """

    event: Event
    token: int
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class EventRecord:
    """All the store knows of one event. ``position`` counts from 1 and is None unless queued."""

    event: Event
    state: EventState
    attempts: tuple[Attempt, ...]
    outcome: Outcome | None
    position: int | None


class EventStore(Protocol):
    """Keeps events and hands them out, first by priority, then first in, first out."""

    async def submit(self, events: Sequence[Event]) -> None:
        """Accept all of ``events`` as queued, or none of them.

        Raises:
            RequestRefused: the queue is full (``queue_full``).
        """

    async def claim(self, now: float) -> Lease | None:
        """Move the first event that is due at ``now`` to running; None if none is due.

        Events whose deadline has passed are never handed out.
        """

    async def next_due(self) -> float | None:
        """Return when the first queued event may be claimed; None if nothing is queued."""

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome) -> bool:
        """Write the outcome of a running event; False and nothing written if the lease was lost."""

    async def release(self, lease: Lease, *, due_at: float, attempts: Sequence[Attempt]) -> bool:
        """Put a running event back in its old place, not to be claimed before ``due_at``.

        ``attempts`` replaces what the record holds. Returns False if the lease was lost.
        """

    async def cancel(self, event_id: str, outcome: Outcome) -> EventState | None:
        """Cancel a queued or running event and return the state it was in; None if unknown.

        An event that had already ended stays as it is, and its state is returned.
        """

    async def expire(self, now: float) -> list[str]:
        """End queued events whose deadline is before ``now``; return their ids."""

    async def get(self, event_id: str) -> EventRecord | None:
        """Return the record of one event; None if unknown."""

    async def counts(self) -> Mapping[EventState, int]:
        """Return how many events are in each state; every state is a key."""

    async def oldest_queued_at(self) -> float | None:
        """Return when the longest-waiting queued event was submitted; None if nothing waits."""
