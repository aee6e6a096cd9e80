"""One event in a worker's hands, and what is known of the attempt that is being made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.generation import Received
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Attempt, Waste

if TYPE_CHECKING:
    from collections.abc import Callable

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


@dataclass(slots=True)
class Run:
    """One event in a worker's hands; cancelled through :meth:`abandon`, to know the reason."""

    lease: Lease
    backend: str = ""
    started_at: float = 0.0
    behind: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    received: Received = field(default_factory=Received)
    abandoned: bool = False
    lost: Waste | None = None
    delta_passed_on: bool = False
    requeued: bool = False
    beat: Callable[[float], None] = lambda _seconds: None
    """Promises the next sign of life of its worker, within so many seconds."""

    def abandon(self) -> None:
        """Stop: nobody wants the result any more."""
        self.abandoned = True
        self.scope.cancel()

    def lose(self, waste: Waste) -> None:
        """Stop: the event has ended, or is run by somebody else; there is nothing to write."""
        self.lost = self.lost or waste
        self.scope.cancel()

    def cut_short(self, now: float, waste: Waste) -> Attempt:
        """Return the attempt that is being made, as one that was aborted at ``now``."""
        stopped = waste is Waste.DAEMON_STOPPED
        return replace(
            self.attempt(now),
            error=_STOPPED_AS.get(waste, ErrorCode.CANCELLED),
            message="aborted on the backend",
            counted=not stopped,
            waste=waste,
            retried=stopped,
            because=_BECAUSE[waste],
        )

    def attempt(self, now: float) -> Attempt:
        """Return the attempt that is being made, as one that gave a completion at ``now``."""
        return Attempt(
            self.backend,
            self.started_at,
            now,
            tokens=self.received.tokens,
            tokens_estimated=self.received.estimated,
            behind=self.behind,
        )
