"""What the HTTP surface needs of the rest of the daemon, and what it tells whoever looks on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ai_ticket_daemon.errors import ErrorCode
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.trace import TraceContext


class Submission(Protocol):
    """An accepted event, as seen by whoever waits for it."""

    @property
    def event_id(self) -> str:
        """The id of the event."""

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how."""

    def deltas(self) -> AsyncIterator[str]:
        """Yield the completion in pieces as they come; ends when the event has ended."""

    def abandon(self) -> None:
        """Nobody wants the result any more: cancel, and free the slot. Harmless once ended."""


class Pipeline(Protocol):
    """Takes events and sees them through."""

    async def submit(self, event: Event) -> Submission:
        """Accept one event.

        Raises:
            RequestRefused: ``queue_full``, ``draining`` or ``no_backend_available``.
            StoreUnavailable: the event could not be written.
        """


class HealthStatus(StrEnum):
    """How well the daemon does its work."""

    HEALTHY = "healthy"
    """Everything works."""
    DEGRADED = "degraded"
    """Events are served, but not as they should be, such as on the standby."""
    UNHEALTHY = "unhealthy"
    """Events cannot be served."""


@dataclass(frozen=True, slots=True)
class BackendReport:
    """One backend as ``/health`` shows it."""

    name: str
    role: str
    state: str
    active: bool
    in_flight: int


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What ``/health`` and ``/ready`` tell. ``ready``: a request sent now would be served."""

    status: HealthStatus
    ready: bool
    draining: bool
    version: str
    uptime_seconds: float
    reasons: tuple[str, ...] = ()
    backends: tuple[BackendReport, ...] = ()
    queue: Mapping[str, int] = field(default_factory=dict)


class HealthView(Protocol):
    """Knows how the daemon does."""

    def report(self) -> HealthReport:
        """Return how things stand now."""


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """The headers of a request have arrived. ``route`` is a template or ``unmatched``."""

    route: str
    method: str
    trace: TraceContext


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over.

    ``status`` is the one that was sent; 499 if the client left before there was any. ``error`` is
    the code that was answered, also inside a stream whose status is 200, and ``cancelled`` if the
    client left.
    """

    route: str
    method: str
    status: int
    error: ErrorCode | None
    duration_seconds: float
    event_id: str | None


class ObservedRequest(Protocol):
    """One request in the eyes of an observer."""

    @property
    def trace(self) -> TraceContext:
        """The trace that the event and the errors of this request belong to."""

    def ended(self, request: RequestEnded) -> None:
        """Take note of how the request ended; called exactly once. Must not block or raise."""


class RequestObserver(Protocol):
    """Metrics, tracing or a test: told of each request's start and end."""

    def started(self, request: RequestStarted) -> ObservedRequest:
        """Take note of a request; called once for each. Must not block or raise."""


@dataclass(frozen=True, slots=True)
class _Unobserved:
    trace: TraceContext

    def ended(self, request: RequestEnded) -> None:
        """Do nothing."""


class NullRequestObserver:
    """Nobody looks on."""

    def started(self, request: RequestStarted) -> ObservedRequest:
        """Keep the trace as it came."""
        return _Unobserved(request.trace)
