"""The outcomes of events that end without a completion; no I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed

if TYPE_CHECKING:
    from ai_ticket_daemon.errors import BackendError
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt


def abandoned(attempts: tuple[Attempt, ...] = ()) -> Failed:
    """Return the outcome of an event whose client left."""
    return Failed(
        ErrorCode.CANCELLED, "The client left before the event had ended.", attempts=attempts
    )


def out_of_time(event: Event, attempts: tuple[Attempt, ...]) -> Failed:
    """Return the outcome of an event whose deadline passed while it ran."""
    return Failed(
        ErrorCode.DEADLINE_EXCEEDED,
        f"The generation did not end within the {event.given_seconds:g} s "
        "this event had; allow it more time with timeout_seconds or ask for fewer tokens.",
        {"backend": attempts[-1].backend},
        attempts=attempts,
    )


def not_tried_again(attempts: tuple[Attempt, ...], reason: str) -> Failed:
    """Return the outcome of an event that used up its attempts without any of them reporting."""
    last = replace(attempts[-1], retried=False, because=reason)
    attempts = (*attempts[:-1], last)
    return Failed(
        last.error or ErrorCode.INTERNAL_ERROR,
        last.message or "The last attempt did not report how it ended.",
        {"backend": last.backend, "attempts": len(attempts), "not_retried_because": reason},
        attempts=attempts,
    )


def failed(error: BackendError, attempts: tuple[Attempt, ...], because: str) -> Failed:
    """Return the outcome of an event after whose last failure there is no further attempt."""
    details = dict(error.details or {})
    details |= {
        "backend": attempts[-1].backend,
        "attempts": len(attempts),
        "not_retried_because": because,
    }
    return Failed(error.code, error.message, details, error.retry_after_seconds, attempts)
