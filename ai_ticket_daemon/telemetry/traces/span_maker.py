"""Makes of a span that was noted down what the exporters of OpenTelemetry's SDK take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Status, StatusCode

from ai_ticket_daemon import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.util.types import AttributeValue

    from ai_ticket_daemon.telemetry.traces.spans import Span, SpanEvent

_SCOPE = InstrumentationScope("ai_ticket_daemon", __version__)
_UNSET = Status(StatusCode.UNSET)


class SpanMaker:
    """Makes spans of the SDK.

    Args:
        resource: what is said of this service.
        limits: of attributes and events; by default as the ``OTEL_SPAN_*`` variables say.
    """

    def __init__(self, resource: Resource, limits: SpanLimits | None = None) -> None:
        self._resource = resource
        self._limits = limits or SpanLimits()

    def make(self, span: Span) -> ReadableSpan:
        """Return the span of the SDK that says the same, within the limits."""
        limits = self._limits
        return ReadableSpan(
            span.name,
            span.context,
            span.parent,
            self._resource,
            _within(limits.max_span_attributes, limits.max_span_attribute_length, span.attributes),
            BoundedList.from_seq(limits.max_events, map(self._event, span.events)),
            kind=span.kind,
            status=_UNSET if span.failure is None else _failure(span.failure),
            start_time=span.started_at,
            end_time=span.ended_at,
            instrumentation_scope=_SCOPE,
        )

    def _event(self, event: SpanEvent) -> Event:
        limits = self._limits
        attributes = _within(
            limits.max_event_attributes, limits.max_attribute_length, event.attributes
        )
        return Event(event.name, attributes, event.at)


def _failure(description: str) -> Status:
    return Status(StatusCode.ERROR, description or None)


def _within(
    most: int | None, length: int | None, attributes: Mapping[str, AttributeValue]
) -> Mapping[str, AttributeValue]:
    """Return ``attributes`` as the limits let them be."""
    if length is None and (most is None or len(attributes) <= most):
        return attributes
    return BoundedAttributes(most, attributes, immutable=True, max_value_len=length)
