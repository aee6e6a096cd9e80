"""OTLP over HTTP that encodes an attribute once: most spans say the same.

Encoding every attribute of every span anew, as the exporter does by itself, is the larger part of
what it costs to send spans. Messages are put together from encoded pieces here, as protobuf allows:
several encodings of a message one after the other read as all of them merged
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.util.types import AnyValue as Value

REMEMBERED_ATTRIBUTES = 1024
"""Bounds what is kept; what all spans say stays, what only one says goes again."""

# The tags of fields that hold messages: the field's number, and 2 for "with its length before it".
_RESOURCE_SPANS = 1 << 3 | 2  # of ExportTraceServiceRequest
_SCOPE_SPANS = 2 << 3 | 2  # of ResourceSpans
_SPANS = 2 << 3 | 2  # of ScopeSpans
_ATTRIBUTES = 9 << 3 | 2  # of Span
_EVENTS = 11 << 3 | 2  # of Span
_EVENT_ATTRIBUTES = 3 << 3 | 2  # of Span.Event
_LOCAL = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE = _LOCAL | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_KIND = {kind: Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}


class SpanExporter(OTLPSpanExporter):
    """Sends spans over HTTP; all of them come from the one tracer of this daemon."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._encode = SpanEncoder().encode

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; fails when the collector does not take it in time, or at a shutdown."""
        sent = self._client.export(self._encode(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class SpanEncoder:
    """Encodes batches of spans that share their resource and scope."""

    def __init__(self) -> None:
        remember = lru_cache(REMEMBERED_ATTRIBUTES, typed=True)
        self._remembered = remember(_attribute)

    def encode(self, spans: Sequence[ReadableSpan]) -> bytes:
        """Return the encoded ``ExportTraceServiceRequest`` for ``spans``, one at least."""
        (resource_spans,) = encode_spans(spans[:1]).resource_spans
        (scope_spans,) = resource_spans.scope_spans
        scope_spans.ClearField("spans")
        resource_spans.ClearField("scope_spans")
        encoded = b"".join([_field(_SPANS, self._span(span)) for span in spans])
        inner = _field(_SCOPE_SPANS, scope_spans.SerializeToString() + encoded)
        return _field(_RESOURCE_SPANS, resource_spans.SerializeToString() + inner)

    def _span(self, span: ReadableSpan) -> bytes:
        context, parent, status = span.get_span_context(), span.parent, span.status
        assert context is not None  # noqa: S101 - it has ended
        code = cast("Status.StatusCode.ValueType", status.status_code.value)
        fixed = Span(
            trace_id=context.trace_id.to_bytes(16),
            span_id=context.span_id.to_bytes(8),
            trace_state=context.trace_state.to_header(),
            parent_span_id=b"" if parent is None else parent.span_id.to_bytes(8),
            name=span.name,
            kind=_KIND[span.kind],
            start_time_unix_nano=span.start_time or 0,
            end_time_unix_nano=span.end_time or 0,
            status=Status(code=code, message=status.description or ""),
            dropped_attributes_count=span.dropped_attributes,
            dropped_events_count=span.dropped_events,
            flags=_REMOTE if parent is not None and parent.is_remote else _LOCAL,
        )
        pieces = [fixed.SerializeToString(), *self._attributes(_ATTRIBUTES, span.attributes)]
        pieces += [_field(_EVENTS, self._event(event)) for event in span.events]
        return b"".join(pieces)

    def _event(self, event: Event) -> bytes:
        fixed = Span.Event(
            name=event.name,
            time_unix_nano=event.timestamp,
            dropped_attributes_count=event.dropped_attributes,
        )
        attributes = self._attributes(_EVENT_ATTRIBUTES, event.attributes)
        return b"".join([fixed.SerializeToString(), *attributes])

    def _attributes(self, tag: int, attributes: Mapping[str, Value] | None) -> list[bytes]:
        return [
            # Tuples of equal numbers of different types would be taken for the same.
            (_attribute if isinstance(value, tuple) else self._remembered)(tag, key, value)
            for key, value in (attributes or {}).items()
        ]


def _attribute(tag: int, key: str, value: Value) -> bytes:
    return _field(tag, KeyValue(key=key, value=_any_value(value)).SerializeToString())


def _any_value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=map(_any_value, value)))
    raise TypeError(f"{type(value).__name__} cannot be the value of an attribute")


def _field(tag: int, content: bytes) -> bytes:
    """Return ``content`` as a field of a message: tag, length as a varint, content."""
    length, head = len(content), bytearray((tag,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + content
