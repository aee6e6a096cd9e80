"""How an event ends: written once, returned to whoever asks."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations at run time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.errors import ErrorCode

if TYPE_CHECKING:
    from ai_ticket_daemon.errors import TicketError


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion. ``estimated`` is True where counting would have cost too much.

    ``reasoning_tokens`` are those of ``completion_tokens`` that were thinking: by the length of the
    text where the server does not count them; None if there was none.
    """

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    reasoning_tokens: int | None = None


class Waste(StrEnum):
    """Why what an attempt made was thrown away, where it was no failure of the attempt."""

    CLIENT_LEFT = "client_left"
    CANCELLED = "cancelled"
    """Somebody cancelled the event."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    DAEMON_STOPPED = "daemon_stopped"
    """The time to drain was over."""
    DAEMON_DIED = "daemon_died"
    """The daemon was killed, or lost touch with the store: nobody reported the end."""
    LEASE_LOST = "lease_lost"
    """Another daemon had taken the event, or ended it."""
    OUTCOME_UNWRITTEN = "outcome_unwritten"
    """The daemon stopped while the store took nothing; the event is run again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one event at one backend."""

    backend: str
    """The name of the backend."""
    started_at: float
    """Seconds since the Unix epoch."""
    ended_at: float
    """Seconds since the Unix epoch."""
    error: ErrorCode | None = None
    """Why it gave no completion; None if it did."""
    message: str | None = None
    """The same in a sentence."""
    counted: bool = True
    """Whether it used up one of the event's attempts."""
    backend_died: bool = False
    """Whether the backend was lost under it."""
    elsewhere: bool = False
    """Whether the next attempt is better made on another backend."""
    tokens: int | None = None
    """How many tokens were received; None if that is not known."""
    tokens_estimated: bool = False
    """Whether ``tokens`` follows from the length of the text."""
    waste: Waste | None = None
    """Why the text was thrown away, where ``error`` is not the reason."""
    retried: bool | None = None
    """Whether another attempt follows; None if there was nothing to decide."""
    because: str | None = None
    """Why it does, or does not."""
    behind: int = 0
    """How many turns of other events it waited for."""
    ahead_of: int = 0
    """How many events it was taken ahead of, because of what its prompt begins with."""
    overtaken: int = 0
    """How many events were taken ahead of it so, until then."""

    @property
    def seconds(self) -> float:
        """How long it took; the clock may have been set back meanwhile."""
        return max(0.0, self.ended_at - self.started_at)

    @property
    def is_busy(self) -> bool:
        """Whether the server was busy with others, so that nothing was even begun."""
        # Not by `counted`: once an operator has an event done again, no earlier attempt counts.
        return self.error is ErrorCode.API_RATE_LIMITED


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The event has its completion."""

    text: str = field(repr=False)
    backend: str
    finish_reason: str
    usage: Usage
    duration_seconds: float
    attempts: tuple[Attempt, ...] = ()
    reasoning: str | None = field(default=None, repr=False)
    """What the model thought before; None unless the client wants it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The event ended without a completion: failed, cancelled or expired, as its state says."""

    code: ErrorCode
    message: str
    details: Mapping[str, Any] | None = None
    retry_after_seconds: float | None = None
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def from_error(cls, error: TicketError, attempts: tuple[Attempt, ...] = ()) -> Failed:
        """Return the outcome that says what ``error`` says."""
        return cls(error.code, error.message, error.details, error.retry_after_seconds, attempts)


Outcome = Succeeded | Failed
