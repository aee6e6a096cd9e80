"""The failure of an attempt: what went wrong, what follows, what it tells of the backend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.errors import TicketError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_ticket_daemon.errors import ErrorCode


class RetryRule(StrEnum):
    """Where a failed attempt is made again, if at all."""

    SAME = "same"
    """Try the same backend again."""
    OVER = "over"
    """Try another backend; this one is suspect."""
    OVER_ONCE = "over_once"
    """The backend died under this event: try another one, once (the event may be poison)."""
    BUSY = "busy"
    """The backend serves somebody else: wait and try again; costs no attempt."""
    HOST = "host"
    """This host lacked what the attempt needs: wait and try again, as if nothing had been tried."""
    FINAL = "final"
    """No retry can help."""


class HealthEvent(StrEnum):
    """What a failed attempt tells of the health of the backend."""

    LOST = "lost"
    """It cannot be reached, died, or accepts connections without answering."""
    STALLED = "stalled"
    """It generates without making progress, or does not stop generating when told to."""
    CREDENTIAL = "credential"
    """It does not accept the configured credential."""
    NO_MODEL = "no_model"
    """It has no model loaded."""
    RELOADING = "reloading"
    """It unloads or reloads its model."""
    FAILED = "failed"
    """It answered, but not with a completion."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed attempt comes to."""

    code: ErrorCode
    """What went wrong, for programs."""
    retry: RetryRule
    """Where the attempt is made again, if at all."""
    health_event: HealthEvent | None = None
    """What it tells of the health of the backend; None if the request was at fault, or nobody."""
    sentence: str = ""
    """What went wrong and what to do about it, for people; it follows the name of the backend."""


class BackendError(TicketError):
    """A backend failed to give a completion.

    Args:
        failure: what it comes to.
        message: as for :class:`TicketError`.
        details: as for :class:`TicketError`.
        retry_after_seconds: the backend's own wish, if it named one.
    """

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(
            failure.code, message, details=details, retry_after_seconds=retry_after_seconds
        )
        self.failure = failure
