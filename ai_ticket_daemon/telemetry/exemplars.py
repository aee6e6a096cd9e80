"""Exemplars: the trace of one request beside the bucket it was counted in (OpenMetrics only)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.telemetry.traces.spans import Span

Exemplar = dict[str, str] | None
"""The labels of an exemplar; None where no trace is recorded."""


def of_span(span: Span | None) -> Exemplar:
    """Return the exemplar that leads to ``span``."""
    if span is None or not span.recorded:
        return None
    return {"trace_id": f"{span.context.trace_id:032x}"}


def of_event(event: Event) -> Exemplar:
    """Return the exemplar that leads to the trace ``event`` belongs to, if that is sampled."""
    trace_id, flags = _traceparent(event)
    sampled = flags != "" and int(flags, 16) % 2 == 1
    return {"trace_id": trace_id} if sampled else None


def trace_id_of(event: Event) -> str | None:
    """Return the id of the trace ``event`` belongs to."""
    return _traceparent(event)[0] or None


def _traceparent(event: Event) -> tuple[str, str]:
    """Return the id and the flags of the event's trace; empty if it has none."""
    parts = event.trace_context.get("traceparent", "").split("-")
    return (parts[1], parts[3]) if len(parts) == 4 else ("", "")
