"""What the pipeline reports; logging, metrics and tracing observe it and never answer back."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.pipeline.turns import Waited


class Place(StrEnum):
    """Where a prompt with a long beginning is sent; a label of metrics."""

    AHEAD = "ahead"
    """Ahead of others, where its beginning was read last."""
    IN_TURN = "in_turn"
    """In its turn, where its beginning was read last."""
    READ_ANEW = "read_anew"
    """Where another one was: the server reads the whole prompt."""


class PipelineObserver:
    """Ignores everything; an observer overrides what it wants to know."""

    def handling(
        self, event: Event, waited: Waited, *, backend: str, earlier: Sequence[Attempt]
    ) -> AbstractContextManager[object]:
        """A worker takes up the event, which is to go to ``backend``.

        It has ``waited`` since the last of the attempts made ``earlier``, or its submission.
        """
        del event, waited, backend, earlier
        return nullcontext()

    def prompt_placed(self, backend: str, place: Place) -> None:
        """A prompt with a long beginning is sent to ``backend``; events are grouped by it."""

    def attempt_ended(self, event: Event, attempt: Attempt) -> None:
        """An attempt succeeded or failed, and it is decided what follows."""

    def thrown_away(self, attempt: Attempt) -> None:
        """The text of the attempt is thrown away; its ``waste`` or its ``error`` says why."""

    def given_up(self, because: str) -> None:
        """There is no further attempt at the event that is being handled."""

    def retry_scheduled(self, event: Event, attempt: Attempt, delay_seconds: float) -> None:
        """The event goes back to the queue after ``attempt`` failed."""

    def ended(self, event: Event, state: EventState, outcome: Outcome) -> None:
        """The event has its outcome."""

    def queue_full(self, number: int) -> None:
        """``number`` events that came together were refused, because too many wait."""

    def batch_ended(self, size: int, duration_seconds: float) -> None:
        """All ``size`` events that were submitted together, and waited for, have their outcomes."""

    def worker_crashed(self, event: Event, error: Exception) -> None:
        """A fault of this program ended the event."""

    def outcome_refused(self, event: Event) -> None:
        """The lease was lost meanwhile, so the outcome was not written."""

    def lease_lost(self, event: Event) -> None:
        """Another daemon has taken the event from this one, which aborts it."""

    def outcome_unwritten(self, event: Event) -> None:
        """The daemon stops while the store takes nothing; the event will be run again."""
