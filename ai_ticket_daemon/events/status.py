"""What can be said of an event at one moment: to its client, to an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState


@dataclass(frozen=True, slots=True)
class EventStatus:
    """Where an event stands.

    ``position`` counts from 1 and is None unless the event is queued. ``estimated_start_at`` is
    seconds since the Unix epoch; None unless it is queued, and as long as nothing was measured or
    no backend is usable, and while events are held. ``backend`` is None unless the event is
    running. ``held`` says what keeps it from being started, if an operator does. The calendar is
    ``ahead`` of all these times by so many seconds, since the clock of the host was set.
    """

    event: Event
    state: EventState
    attempts: tuple[Attempt, ...] = ()
    outcome: Outcome | None = None
    position: int | None = None
    estimated_start_at: float | None = None
    backend: str | None = None
    held: str | None = None
    ahead: float = 0.0
