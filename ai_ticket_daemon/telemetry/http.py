"""Turns HTTP requests into metrics, log lines and the span ``server.handle_event``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind

from ai_ticket_daemon.server.ports import (
    ConnectionObserver,
    ConnectionRefusal,
    ObservedRequest,
    RequestObserver,
)
from ai_ticket_daemon.telemetry import exemplars
from ai_ticket_daemon.telemetry.capture import Refused
from ai_ticket_daemon.telemetry.guard import guarded
from ai_ticket_daemon.telemetry.traces.spans import span_context

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.errors import TicketError
    from ai_ticket_daemon.server.ports import RequestEnded, RequestStarted
    from ai_ticket_daemon.telemetry.capture import Capture
    from ai_ticket_daemon.telemetry.guard import Failures
    from ai_ticket_daemon.telemetry.metrics import Metrics
    from ai_ticket_daemon.telemetry.traces.spans import Span, Tracer
    from ai_ticket_daemon.tracecontext import TraceContext

_SERVER_FAULT = 500


class ConnectionTelemetry(ConnectionObserver):
    """Counts the connections that the HTTP surface refuses."""

    def __init__(self, metrics: Metrics) -> None:
        # A series has to be there at 0 for its first increase to be seen.
        self._counters = {
            why: metrics.server_connections_refused.labels(why.value) for why in ConnectionRefusal
        }

    def refused(self, why: ConnectionRefusal) -> None:
        """See :meth:`ConnectionObserver.refused`."""
        self._counters[why].inc()


class HttpTelemetry(RequestObserver):
    """Observes the requests of the HTTP surface."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        metrics: Metrics,
        tracer: Tracer | None,
        capture: Capture | None = None,
    ) -> None:
        self._log = log
        self._capture = capture
        self._metrics = metrics
        self._tracer = tracer

    def started(self, request: RequestStarted) -> _Observed:
        """See :meth:`RequestObserver.started`."""
        self._metrics.server_requests_in_flight.inc()
        if self._tracer is None or not request.is_traced:
            return _Observed(self, request.route, request.trace, None)
        trace = request.trace
        span = self._tracer.start(
            "server.handle_event",
            SpanKind.SERVER,
            span_context(trace) if trace.remote else None,
            {"http.route": request.route, "http.request.method": request.method},
        )
        client_id = trace.parent_id if trace.remote else None
        return _Observed(self, request.route, span.trace(client_id), span)

    def refused(self, error: TicketError, trace_id: str, route: str, payload: object) -> None:
        """Keep a payload that was refused, if captures are on."""
        if self._capture is not None:
            self._capture.refused(
                Refused(trace_id, route, error.code, error.message, error.details, payload)
            )

    def ended(self, request: RequestEnded, trace: TraceContext, span: Span | None) -> None:
        """Count and log the end of a request, and end its span."""
        labels = (request.route, request.method, str(request.status))
        metrics = self._metrics
        metrics.server_requests_in_flight.dec()
        metrics.server_requests.labels(*labels).inc()
        exemplar = exemplars.of_span(span)
        metrics.server_request_duration.labels(*labels).observe(request.duration_seconds, exemplar)
        error = None if request.error is None else request.error.value
        if error is not None:
            metrics.server_request_failures.labels(*labels, error).inc(exemplar=exemplar)
        if span is not None:
            _end_span(span, request, error)
        self._log.debug(
            "request",
            route=request.route,
            method=request.method,
            status=request.status,
            error=error,
            event_id=request.event_id,
            trace_id=trace.trace_id,
            client=request.client,
            duration_seconds=round(request.duration_seconds, 4),
        )


class QuietHttpTelemetry(RequestObserver):
    """The same, and whatever goes wrong in it is nobody's business but ``failures``'s."""

    def __init__(self, telemetry: HttpTelemetry, failures: Failures) -> None:
        self._telemetry = telemetry
        self._failures = failures

    def started(self, request: RequestStarted) -> ObservedRequest:
        """See :meth:`RequestObserver.started`."""
        try:
            return guarded(self._telemetry.started(request), self._failures)
        except Exception as error:  # noqa: BLE001 - the edge of an observer
            self._failures.note("started", error)
            return super().started(request)


class _Observed(ObservedRequest):
    def __init__(
        self, telemetry: HttpTelemetry, route: str, trace: TraceContext, span: Span | None
    ) -> None:
        super().__init__(trace)
        self._telemetry = telemetry
        self._route = route
        self._span = span

    def refused(self, error: TicketError, payload: object) -> None:
        """See :meth:`ObservedRequest.refused`."""
        self._telemetry.refused(error, self.trace.trace_id, self._route, payload)

    def ended(self, request: RequestEnded) -> None:
        """See :meth:`ObservedRequest.ended`."""
        self._telemetry.ended(request, self.trace, self._span)


def _end_span(span: Span, request: RequestEnded, error: str | None) -> None:
    attributes: dict[str, AttributeValue] = {"http.response.status_code": request.status}
    if request.event_id is not None:
        attributes["ai_ticket.event_id"] = request.event_id
    if error is not None:
        attributes["error.type"] = error
    span.set(attributes)
    if request.status >= _SERVER_FAULT:
        span.fail()
    span.end()
