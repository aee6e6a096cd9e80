"""What the HTTP surface needs of the rest of the daemon, and what it tells whoever looks on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.events.status import EventStatus
    from ai_ticket_daemon.status.snapshot import Snapshot
    from ai_ticket_daemon.tracecontext import TraceContext


class Submission(Protocol):
    """An accepted event, as seen by whoever waits for it.

    ``status`` is how it stood when it was accepted; ``replayed`` tells that it had been accepted
    before, under the same idempotency key.
    """

    @property
    def event_id(self) -> str:
        """The id of the event."""

    @property
    def status(self) -> EventStatus:
        """How the event stood when it was accepted."""

    @property
    def replayed(self) -> bool:
        """Whether the event had been accepted before."""

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how."""

    def deltas(self) -> AsyncIterator[str]:
        """Yield the completion in pieces as they come; ends when the event has ended.

        What the model thinks comes as :class:`ReasoningText`, if the client wants it. Of an event
        that had been accepted before, the whole text comes as one piece at its end.
        """

    def release(self) -> None:
        """Stop waiting; the event goes on."""

    def abandon(self) -> None:
        """Nobody wants the result any more: cancel, and free the slot. Harmless once ended.

        An event that somebody else waits for, or that has an idempotency key, goes on.
        """


class Pipeline(Protocol):
    """Takes events and sees them through."""

    async def submit(self, event: Event, *, fail_fast: bool = True) -> Submission:
        """Accept one event. ``fail_fast`` False queues it even while no backend is usable.

        Raises:
            RequestRefused: ``queue_full``, ``draining``, ``no_backend_available`` or
                ``idempotency_conflict``.
            StoreUnavailable: the event could not be written.
        """

    async def enqueue(self, events: Sequence[Event]) -> list[EventStatus | RequestRefused]:
        """Accept ``events`` in one transaction, for nobody to wait for; one answer for each.

        An event whose idempotency key stands for another payload is refused by itself.

        Raises:
            RequestRefused: ``queue_full`` or ``draining``; none was accepted.
            StoreUnavailable: none could be written.
        """

    def iter_responses(
        self,
        events: Sequence[Event],
        *,
        earlier: dict[str, str] | None = None,
        on_accepted: Callable[[], None] | None = None,
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Accept ``events`` in one transaction; yield the id and outcome of each as it ends.

        The id is that of the event as given; where its idempotency key leads to an earlier event,
        ``earlier`` takes the id of that one. ``on_accepted`` is called when they are in the store,
        and their texts need not be kept. Leaving early abandons those that have not ended.

        Raises:
            RequestRefused: ``queue_full`` or ``draining``; none was accepted.
            StoreUnavailable: none could be written.
        """

    async def status(self, event_id: str) -> EventStatus | None:
        """Return how an event stands; None if there is none of this id.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    async def watch(self, event_id: str) -> Submission | None:
        """Wait for an event that was accepted before; None if there is none of this id.

        Raises:
            StoreUnavailable: the store cannot be read.
        """

    async def cancel(self, event_id: str) -> EventStatus | None:
        """Cancel an event and return how it stands then; one that has ended stays as it is.

        Raises:
            StoreUnavailable: the cancellation cannot be written.
        """


class HealthView(Protocol):
    """Knows how the daemon does."""

    def snapshot(self) -> Snapshot:
        """Return how things stand now; the events in the store are as they were last counted."""

    async def recent(self) -> Snapshot:
        """Return how things stand now, with the events in the store if those can be counted."""


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """The headers of a request have arrived.

    ``route`` is a template or ``unmatched``; ``is_traced`` tells whether it brings events: looking
    at one is not part of its trace.
    """

    route: str
    method: str
    trace: TraceContext
    is_traced: bool = False


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over.

    ``status`` is the one that was sent; 499 if the client left before there was any. ``error`` is
    the code that was answered, also inside a stream whose status is 200, and ``cancelled`` if the
    client left. ``client`` is its address, unless that is not to be recorded.
    """

    route: str
    method: str
    status: int
    error: ErrorCode | None
    duration_seconds: float
    event_id: str | None
    client: str | None = None


class ObservedRequest:
    """One request in the eyes of an observer; it keeps the trace as it came, and no more."""

    def __init__(self, trace: TraceContext) -> None:
        self.trace = trace
        """The trace that the event and the errors of this request belong to."""

    def refused(self, error: TicketError, payload: object) -> None:
        """Take note of what was refused for what it says: a body (bytes), or one item of it.

        Must not block or raise.
        """

    def ended(self, request: RequestEnded) -> None:
        """Take note of how the request ended; called exactly once. Must not block or raise."""


class RequestObserver:
    """Told of each request's start and end; metrics, tracing or a test override what they need."""

    def started(self, request: RequestStarted) -> ObservedRequest:
        """Take note of a request; called once for each. Must not block or raise."""
        return ObservedRequest(request.trace)


class ConnectionRefusal(StrEnum):
    """Why a connection is not served, or no longer."""

    MALFORMED = "malformed"
    """What came over it is not valid HTTP, or can be read in two ways."""
    ADDRESS_FULL = "address_full"
    """Its address has as many connections as one address may have."""
    FULL = "full"
    """All connections are taken."""


class ConnectionObserver:
    """Told of connections that are refused."""

    def refused(self, why: ConnectionRefusal) -> None:
        """Take note of a connection that is refused. Must not block or raise."""
