"""Exemplars: the trace of one request beside the bucket it was counted in (OpenMetrics only)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import get_current_span

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from ai_ticket_daemon.events.event import Event

Exemplar = dict[str, str] | None
"""The labels of an exemplar; None where no trace is recorded."""


def of_span(span: Span | None) -> Exemplar:
    """Return the exemplar that leads to ``span``."""
    if span is None or not span.is_recording():
        return None
    return {"trace_id": f"{span.get_span_context().trace_id:032x}"}


def of_current_span() -> Exemplar:
    """Return the exemplar that leads to the span this task is in."""
    return of_span(get_current_span())


def of_event(event: Event) -> Exemplar:
    """Return the exemplar that leads to the trace ``event`` belongs to, if that is sampled."""
    _, _, rest = event.trace_context.get("traceparent", "").partition("-")
    trace_id, _, rest = rest.partition("-")
    sampled = rest != "" and int(rest[-1], 16) % 2 == 1
    return {"trace_id": trace_id} if sampled else None
