"""How an event ends: written once, returned to whoever asks."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations at run time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.errors import ErrorCode  # noqa: TC001 - as above

if TYPE_CHECKING:
    from ai_ticket_daemon.errors import TicketError


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion. ``estimated`` is True where counting would have cost too much."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a backend, with its times in seconds since the Unix epoch.

    ``error`` and ``message`` are None if it gave the completion. ``counted`` tells whether it used
    up one of the event's attempts; ``backend_died`` whether the backend was lost under it;
    ``elsewhere`` whether the next attempt is better made on another backend.
    """

    backend: str
    started_at: float
    ended_at: float
    error: ErrorCode | None = None
    message: str | None = None
    counted: bool = True
    backend_died: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The event has its completion."""

    text: str = field(repr=False)
    backend: str
    finish_reason: str
    usage: Usage
    duration_seconds: float
    attempts: tuple[Attempt, ...] = ()


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
