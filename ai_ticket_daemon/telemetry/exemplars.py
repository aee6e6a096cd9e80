"""Exemplars: the trace of one request beside the bucket it was counted in (OpenMetrics only)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.tracecontext import kept_trace

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
    trace = kept_trace(event.trace_context)
    return {"trace_id": trace.trace_id} if trace is not None and trace.is_sampled else None
