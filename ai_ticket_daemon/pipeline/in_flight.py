"""An event in a worker's hands, the attempt that is being made, and the outcomes without a text.

No I/O: the worker makes the attempt, and writes its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.generation import Received
from ai_ticket_daemon.backends.observation import SlotEnd
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Attempt, Failed, Waste

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.backends.failure import BackendError
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.store.port import Lease

_STOPPED_AS = {
    Waste.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
    Waste.DAEMON_STOPPED: ErrorCode.DRAINING,
}
_BECAUSE = {
    Waste.CLIENT_LEFT: "the client left",
    Waste.CANCELLED: "the event was cancelled",
    Waste.DEADLINE_EXCEEDED: "the deadline has passed",
    Waste.DAEMON_STOPPED: "the daemon stopped; it costs no attempt",
    Waste.LEASE_LOST: "the event was taken over or ended elsewhere",
}

_STOPPED: Mapping[SlotEnd | None, str] = {
    None: "aborted",
    SlotEnd.FREE: "aborted on the backend",
    SlotEnd.READING: "aborted; the backend stops after the prompt is read",
    SlotEnd.UNSEEN: "connection closed; the backend does not tell whether it has stopped",
    SlotEnd.TAKEN: "the backend was told to stop, and goes on",
}


@dataclass(slots=True)
class InFlight:
    """One event in a worker's hands, from its claim until its outcome or its requeue is written."""

    lease: Lease
    """The right to end the event."""
    beat: Callable[[float], None] = lambda _seconds: None
    """Promises the next sign of life of the worker within the given seconds."""
    backend: str = ""
    """The name of the backend that is tried."""
    started_at: float = 0.0
    """When the attempt began (seconds since the Unix epoch)."""
    behind: int = 0
    """How many turns of other events it waited behind."""
    was_read: bool = False
    """Whether the backend has just read what its prompt begins with."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Ends the attempt; cancelled through :meth:`abandon` or :meth:`lose`, to know the reason."""
    received: Received = field(default_factory=Received)
    """How much of the completion has come."""
    delta_passed_on: bool = False
    """Whether the client has got a part of the completion."""
    abandoned: bool = False
    """Whether nobody wants the result any more; the worker writes that the event is cancelled."""
    lost: Waste | None = None
    """Why the worker has nothing to write any more; None while it has."""
    resolved: bool = False
    """Whether what becomes of it is being written: that tells whether it still was to be."""
    requeues: bool = False
    """Whether it is decided that the event goes back to the queue."""

    @property
    def event_id(self) -> str:
        """The id of the event."""
        return self.lease.event.event_id

    def abandon(self) -> None:
        """Stop: nobody wants the result any more."""
        self.abandoned = True
        self.scope.cancel()

    def lose(self, waste: Waste) -> None:
        """Stop: the event has ended, or is run by another daemon; there is nothing to write."""
        self.lost = self.lost or waste
        self.scope.cancel()

    def attempt(self, now: float) -> Attempt:
        """Return the attempt that is being made, as one that gave a completion at ``now``."""
        return Attempt(
            self.backend,
            self.started_at,
            now,
            tokens=self.received.tokens,
            tokens_estimated=self.received.estimated,
            behind=self.behind,
            ahead_of=self.lease.ahead_of,
            overtaken=self.lease.overtaken,
        )

    def cut_short(self, now: float, waste: Waste) -> Attempt:
        """Return the attempt that is being made, as one that was aborted at ``now``."""
        stopped = waste is Waste.DAEMON_STOPPED
        return replace(
            self.attempt(now),
            error=_STOPPED_AS.get(waste, ErrorCode.CANCELLED),
            message=_STOPPED[self.received.slot],
            counted=not stopped,
            waste=waste,
            retried=stopped,
            because=_BECAUSE[waste],
        )


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
