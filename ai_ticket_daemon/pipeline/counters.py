"""What the pipeline has done since the start: events ended, and what was made for nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.pipeline.observer import PipelineObserver


@dataclass(slots=True)
class Wasted:
    """What was made for nobody; ``unknown``: of how many attempts nobody knows the tokens."""

    seconds: float = 0.0
    tokens: int = 0
    attempts: int = 0
    unknown: int = 0


class Counters:
    """Counts what came of events and attempts; the observer is told of each as well.

    ``ended`` is the number of events; ``wasted`` is by server and cause.
    """

    def __init__(self, observer: PipelineObserver) -> None:
        self.ended = 0
        self.wasted: dict[tuple[str, str], Wasted] = {}
        self._observer = observer

    def event_ended(self, event: Event, state: EventState, outcome: Outcome) -> None:
        """Count an event that has its outcome."""
        self.ended += 1
        self._observer.ended(event, state, outcome)

    def thrown_away(self, attempt: Attempt) -> None:
        """Count an attempt whose text nobody gets."""
        wasted = self.wasted.setdefault((attempt.backend, cause_of(attempt)), Wasted())
        wasted.seconds += attempt.seconds
        wasted.attempts += 1
        if attempt.tokens is None:
            wasted.unknown += 1
        else:
            wasted.tokens += attempt.tokens
        self._observer.thrown_away(attempt)


def cause_of(attempt: Attempt) -> str:
    """Return why nobody gets what the attempt made."""
    cause = attempt.waste or attempt.error
    return "none" if cause is None else cause.value
