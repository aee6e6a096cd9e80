"""The failure of an attempt: what went wrong, what follows, what it tells of the backend."""

from __future__ import annotations

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
    """What a failed attempt says of the health of the backend."""

    LOST = "lost"
    """It cannot be reached, died, or accepts connections without answering."""
    STALLED = "stalled"
    """It generates without making progress, or does not stop generating when told to."""
    CREDENTIAL = "credential"
    """It does not accept the configured credential."""
    NO_MODEL = "no_model"
    """It has no model loaded."""
    FAILED = "failed"
    """It answered, but not with a completion."""


class BackendError(TicketError):
    """A backend failed to give a completion.

    Args:
        code: as for :class:`TicketError`.
        message: as for :class:`TicketError`.
        retry: how the failure is to be treated.
        backend_fault: True if it counts against the health of the backend, False if the request
            was at fault or the backend merely busy.
        details: as for :class:`TicketError`.
        retry_after_seconds: the backend's own wish, if it named one.
        health_event: what it says of the backend; of a fault without one, no more than that.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry: RetryRule,
        backend_fault: bool,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
        health_event: HealthEvent | None = None,
    ) -> None:
        super().__init__(code, message, details=details, retry_after_seconds=retry_after_seconds)
        self.retry = retry
        self.backend_fault = backend_fault
        self.health_event = health_event or (HealthEvent.FAILED if backend_fault else None)
