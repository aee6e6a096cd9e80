"""What can be said of an event at one moment: to its client, to an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState


class EventStatus(Struct, frozen=True):
    """Where an event stands."""

    event: Event
    state: EventState
    attempts: tuple[Attempt, ...] = ()
    """Those that were made, the first one first."""
    outcome: Outcome | None = None
    """How it ended; None while it has not."""
    position: int | None = None
    """Its place in the queue, from 1; None unless it is queued."""
    estimated_start_at: float | None = None
    """Seconds since the Unix epoch; None if it cannot be said: no turn was measured yet, no backend
    is usable, or events are held."""
    backend: str | None = None
    """The backend that runs it; None unless it is running."""
    held: str | None = None
    """What keeps it from being started, if an operator does."""
    ahead: float = 0.0
    """By how many seconds the calendar is ahead of the times in here: the clock was set."""
