"""From W3C trace headers to the context that a span is a child of, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

_PARTS = 4


def parent_of(headers: Mapping[str, str]) -> Context:
    """Return the context whose children continue the trace of ``headers``; empty if none is named.

    The headers were checked when they came in (``server/trace.py``).
    """
    parts = headers.get("traceparent", "").split("-")
    if len(parts) < _PARTS:
        return Context()
    state = headers.get("tracestate")
    remote = SpanContext(
        int(parts[1], 16),
        int(parts[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(parts[3], 16)),
        trace_state=None if state is None else TraceState.from_header([state]),
    )
    return set_span_in_context(NonRecordingSpan(remote), Context())


def headers_of(span: Span) -> dict[str, str]:
    """Return the headers that make what is sent along a child of ``span``."""
    context = span.get_span_context()
    flags = int(context.trace_flags)
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers
