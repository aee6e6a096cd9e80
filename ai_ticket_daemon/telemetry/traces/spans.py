"""Spans while they are open: noted down on the event loop, as cheaply as can be.

OpenTelemetry's own span costs, once per event and amidst everything else, several times what it
costs among many of its kind. So the event loop only notes down what the spans are to say, and the
thread that sends them makes spans of the SDK in batches (:mod:`.span_maker`).
"""

from __future__ import annotations

import random
import time
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Self

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from ai_ticket_daemon.tracecontext import TraceContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import SpanKind
    from opentelemetry.util.types import AttributeValue

_NEW = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)


class SpanEvent(NamedTuple):
    """Something that happened within a span, ``at`` nanoseconds since the Unix epoch."""

    name: str
    attributes: Mapping[str, AttributeValue]
    at: int


class Span:
    """One operation of a trace; keeps what it is told until it ends.

    A span that is not ``recorded`` only hands its trace on. As a context manager it is the current
    one, and ends with the block. Times are in nanoseconds since the Unix epoch.
    """

    __slots__ = (
        "_ended",
        "_epoch",
        "_token",
        "attributes",
        "context",
        "ended_at",
        "events",
        "failure",
        "kind",
        "name",
        "parent",
        "recorded",
        "started_at",
    )

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        context: SpanContext,
        attributes: dict[str, AttributeValue],
        ended: Callable[[Span], None],
    ) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self.context = context
        self.recorded = context.trace_flags.sampled
        self.attributes = attributes
        self.events: list[SpanEvent] = []
        self.failure: str | None = None
        self.started_at = time.time_ns()
        # From here on it is measured: the clock of the host may be set meanwhile.
        self._epoch = self.started_at - time.monotonic_ns()
        self.ended_at = 0
        self._ended = ended
        self._token: Token[Span | None]

    def headers(self) -> dict[str, str]:
        """Return the headers that make what is sent along a child of this span."""
        return self.trace().headers()

    def trace(self, client_id: str | None = None) -> TraceContext:
        """Return the trace as it goes on below this span; ``client_id`` is of the span above it."""
        context = self.context
        return TraceContext(
            f"{context.trace_id:032x}",
            f"{context.span_id:016x}",
            f"{int(context.trace_flags):02x}",
            context.trace_state.to_header() if context.trace_state else None,
            remote=False,
            client_id=client_id,
        )

    def set(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes."""
        self.attributes.update(attributes)

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Note what happens now."""
        self.events.append(SpanEvent(name, attributes or {}, self._now()))

    def fail(self, description: str = "") -> None:
        """Mark it as failed; the description must not hold what a client sent."""
        self.failure = description

    def end(self) -> None:
        """End it now; it is not to be touched any more."""
        self.ended_at = max(self.started_at, self._now())
        if self.recorded:
            self._ended(self)

    def _now(self) -> int:
        return self._epoch + time.monotonic_ns()

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        _current.reset(self._token)
        if isinstance(error, Exception):
            self.fail()  # without its text: that may hold a prompt
        self.end()


class Tracer:
    """Starts spans.

    Args:
        sampler: decides where a trace begins, or comes in, whether it is recorded; None: all but
            what the client does not record. Within the daemon a span goes with its parent.
        ended: takes each recorded span once it has ended; must not block.
    """

    def __init__(self, sampler: Sampler | None, ended: Callable[[Span], None]) -> None:
        self._sampler = sampler
        self._ended = ended

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        attributes: dict[str, AttributeValue],
    ) -> Span:
        """Return a span that begins now; it has to be ended."""
        if parent is None:
            context = SpanContext(_random_id(128), _random_id(64), False, _NEW)
        else:
            context = SpanContext(
                parent.trace_id, _random_id(64), False, parent.trace_flags, parent.trace_state
            )
        if self._sampler is not None and (parent is None or parent.is_remote):
            sampled = _asked(self._sampler, context.trace_id, parent, name, kind, attributes)
            context = _with_flag(context, sampled=sampled)
        return Span(name, kind, parent, context, attributes, self._ended)

    def go_on(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        context: SpanContext,
        attributes: dict[str, AttributeValue],
        *,
        started_at: int,
    ) -> Span:
        """Return the span that another process began as ``context`` and could not end."""
        span = Span(name, kind, parent, context, attributes, self._ended)
        span.started_at = started_at
        return span


def _asked(
    sampler: Sampler,
    trace_id: int,
    parent: SpanContext | None,
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue],
) -> bool:
    around = Context()
    if parent is not None:
        around = set_span_in_context(NonRecordingSpan(parent), around)
    result = sampler.should_sample(around, trace_id, name, kind, attributes)
    return result.decision is Decision.RECORD_AND_SAMPLE


def _with_flag(context: SpanContext, *, sampled: bool) -> SpanContext:
    flags = context.trace_flags & ~TraceFlags.SAMPLED | (TraceFlags.SAMPLED if sampled else 0)
    return SpanContext(
        context.trace_id, context.span_id, False, TraceFlags(flags), context.trace_state
    )


_current: ContextVar[Span | None] = ContextVar("span", default=None)


def current_span() -> Span | None:
    """Return the span this task is in."""
    return _current.get()


def current_context() -> SpanContext | None:
    """Return what a span that starts now is a child of."""
    span = _current.get()
    return None if span is None else span.context


def span_context(trace: TraceContext | None) -> SpanContext | None:
    """Return the span that ``trace`` names, for others to be its children; None if it is None."""
    if trace is None:
        return None
    return SpanContext(
        int(trace.trace_id, 16),
        int(trace.parent_id, 16),
        trace.remote,
        TraceFlags(int(trace.flags, 16)),
        None if trace.state is None else TraceState.from_header([trace.state]),
    )


def client_span_context(trace: TraceContext | None) -> SpanContext | None:
    """Return the client's span above the one that ``trace`` names; None if none is kept with it."""
    if trace is None or trace.client_id is None:
        return None
    return span_context(replace(trace, parent_id=trace.client_id, remote=True))


def _random_id(bits: int) -> int:
    """Return a random number that is not 0, which stands for no id."""
    return random.getrandbits(bits) or 1
