"""Turns what the parts tell of themselves into log lines, metrics and spans."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import trio
from opentelemetry.trace import SpanKind

from ai_ticket_daemon.backends.observation import SlotEnd
from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Failed, Waste
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.pipeline.counters import cause_of
from ai_ticket_daemon.pipeline.observer import PipelineObserver
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.telemetry import exemplars
from ai_ticket_daemon.telemetry.traces.spans import (
    client_span_context,
    current_span,
    span_context,
)
from ai_ticket_daemon.tracecontext import kept_trace, kept_trace_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.util.types import AttributeValue
    from prometheus_client import Counter, Histogram
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.backends.kobold.abort import AbortEnd, AbortReason
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.host.exhaustion import Resource
    from ai_ticket_daemon.pipeline.observer import Place
    from ai_ticket_daemon.pipeline.turns import Waited
    from ai_ticket_daemon.pool.backend import Backend, GuestReason
    from ai_ticket_daemon.pool.failover import ActiveRole
    from ai_ticket_daemon.pool.health import Health
    from ai_ticket_daemon.store.port import CutOff
    from ai_ticket_daemon.telemetry.capture import Capture
    from ai_ticket_daemon.telemetry.metrics import Metrics
    from ai_ticket_daemon.telemetry.traces.spans import Span, Tracer


_NO_SPAN = nullcontext()

QUEUE_FULL_SECONDS = 60.0
"""Between two lines that say the queue is full, however many events are refused."""


class PipelineTelemetry(PipelineObserver):
    """Counts, logs and traces what happens to events. Prompts go to the capture only."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        metrics: Metrics,
        tracer: Tracer | None,
        capture: Capture | None = None,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._tracer = tracer
        self._capture = capture
        self._ends: dict[EventState, tuple[Counter, Histogram]] = {}
        self._refused = 0
        self._refused_said_at = -math.inf

    def handling(
        self, event: Event, waited: Waited, *, backend: str, earlier: Sequence[Attempt]
    ) -> AbstractContextManager[None]:
        """Span ``pipeline.handle_event``, a child of the client's trace."""
        if not earlier:
            self._metrics.pipeline_queue_wait.observe(waited.seconds, self._exemplar(event))
        if self._tracer is None:
            return _NO_SPAN
        return self._span(self._tracer, event, waited, backend, earlier)

    @contextmanager
    def _span(
        self,
        tracer: Tracer,
        event: Event,
        waited: Waited,
        backend: str,
        earlier: Sequence[Attempt],
    ) -> Iterator[None]:
        with tracer.start(
            "pipeline.handle_event",
            SpanKind.CONSUMER,
            span_context(kept_trace(event.trace_context)),
            {
                "ai_ticket.event_id": event.event_id,
                "ai_ticket.priority": event.priority,
                "ai_ticket.queue_wait_seconds": waited.seconds,
            },
        ) as span:
            if earlier and earlier[-1].waste is Waste.DAEMON_DIED:
                # Its own span was lost with the daemon.
                span.add_event("put_back", {"ai_ticket.because": earlier[-1].message or ""})
            if waited:
                span.add_event(
                    "waited",
                    {"ai_ticket.seconds": waited.seconds, "ai_ticket.behind": waited.behind},
                )
            if waited.overtaken:
                span.add_event("overtaken", {"ai_ticket.overtaken": waited.overtaken})
            if waited.ahead_of:
                span.add_event("taken_ahead", {"ai_ticket.ahead_of": waited.ahead_of})
            if earlier and earlier[-1].backend != backend:
                span.add_event("switched", {"from": earlier[-1].backend, "to": backend})
            yield

    def prompt_placed(self, backend: str, place: Place) -> None:
        """Count whether a server is sent a prompt of which it has read the beginning."""
        self._metrics.pipeline_grouped_starts.labels(backend, place.value).inc()

    def attempt_ended(self, event: Event, attempt: Attempt) -> None:
        """Log how an attempt failed."""
        if attempt.error is None:
            return
        about: dict[str, AttributeValue] = {
            "ai_ticket.backend": attempt.backend,
            "error.type": attempt.error.value,
            "ai_ticket.reason": attempt.message or "",
            "ai_ticket.seconds": attempt.seconds,
        }
        if attempt.tokens is not None:
            about["ai_ticket.tokens"] = attempt.tokens
        _note("busy" if attempt.is_busy else "attempt_failed", about)
        if attempt.waste is Waste.DAEMON_STOPPED:
            _note("put_back", {"ai_ticket.because": attempt.because or ""})
        self._log.info(
            "attempt_failed",
            **_named(event),
            backend=attempt.backend,
            error=attempt.error.value,
            reason=attempt.message,
            tokens=attempt.tokens,
        )

    def thrown_away(self, attempt: Attempt) -> None:
        """Count the time and the tokens of an attempt as wasted."""
        metrics = self._metrics
        labels = attempt.backend, cause_of(attempt)
        metrics.kobold_wasted_seconds.labels(*labels).inc(attempt.seconds)
        known = "unknown"
        if attempt.tokens is not None:
            metrics.kobold_wasted_tokens.labels(*labels).inc(attempt.tokens)
            known = "estimated" if attempt.tokens_estimated else "counted"
        metrics.kobold_wasted_attempts.labels(*labels, known).inc()

    def given_up(self, because: str) -> None:
        """Note on the span why there is no further attempt."""
        _note("given_up", {"ai_ticket.because": because})

    def retry_scheduled(self, event: Event, attempt: Attempt, delay_seconds: float) -> None:
        """Count and log that an event is tried again."""
        error = "none" if attempt.error is None else attempt.error.value
        _note(
            "retry_scheduled",
            {
                "error.type": error,
                "ai_ticket.delay_seconds": delay_seconds,
                "ai_ticket.because": attempt.because or "",
            },
        )
        self._metrics.pipeline_retries.labels(error).inc()
        self._log.info(
            "retry_scheduled",
            **_named(event),
            backend=attempt.backend,
            error=error,
            delay_seconds=round(delay_seconds, 3),
        )

    def ended(self, event: Event, state: EventState, outcome: Outcome) -> None:
        """Count and log the end of an event: one line for each, so that its id leads to it."""
        if isinstance(outcome, Failed):
            duration = max((a.ended_at for a in outcome.attempts), default=event.submitted_at)
            duration -= event.submitted_at
            error = outcome.code.value
        else:
            duration = outcome.duration_seconds
            error = None
        _note_outcome(current_span(), state, error)
        count, durations = self._ends_in(state)
        count.inc()
        durations.observe(duration, self._exemplar(event))
        self._log.info(
            "event_ended",
            **_named(event),
            state=state.value,
            error=error,
            attempts=len(outcome.attempts),
        )
        if self._capture is not None:
            self._capture.ended(event, state, outcome)

    def _ends_in(self, state: EventState) -> tuple[Counter, Histogram]:
        """Return what counts and times the events that end so; looked up once."""
        if state not in self._ends:
            metrics, label = self._metrics, state.value
            self._ends[state] = (
                metrics.pipeline_events.labels(label),
                metrics.pipeline_handler_duration.labels(label),
            )
        return self._ends[state]

    def queue_full(self, number: int) -> None:
        """Log that events were refused: now and then, with how many were since."""
        self._refused += number
        now = trio.current_time()
        if now - self._refused_said_at >= QUEUE_FULL_SECONDS:
            self._log.warning("queue_full", refused=self._refused)
            self._refused, self._refused_said_at = 0, now

    def batch_ended(self, size: int, duration_seconds: float) -> None:
        """Time a batch."""
        self._metrics.pipeline_batch_duration.observe(duration_seconds)
        self._log.debug("batch_ended", size=size, duration_seconds=round(duration_seconds, 4))

    def worker_crashed(self, event: Event, error: Exception) -> None:
        """Log a fault of this program with its traceback."""
        self._log.error("worker_crashed", **_named(event), exc_info=error)

    def outcome_refused(self, event: Event) -> None:
        """Count and log that an outcome came after its lease was lost."""
        self._metrics.pipeline_outcomes_refused.inc()
        self._log.warning("outcome_refused", **_named(event))

    def lease_lost(self, event: Event) -> None:
        """Count and log that an event was taken away while it ran."""
        self._metrics.pipeline_outcomes_refused.inc()
        self._log.warning("lease_lost", **_named(event))

    def outcome_unwritten(self, event: Event) -> None:
        """Log that an outcome is lost, and the event will be run again."""
        self._log.error("outcome_unwritten", **_named(event))

    def _exemplar(self, event: Event) -> exemplars.Exemplar:
        return None if self._tracer is None else exemplars.of_event(event)


def _note(event: str, attributes: Mapping[str, AttributeValue]) -> None:
    if (span := current_span()) is not None:
        span.add_event(event, attributes)


def _note_outcome(span: Span | None, state: EventState, error: str | None) -> None:
    if span is None:
        return
    span.set({"ai_ticket.outcome": state.value})
    if error is not None:
        span.set({"error.type": error})
        if state is not EventState.CANCELLED:
            span.fail()


def _named(event: Event) -> dict[str, str | None]:
    """Return the fields by which a line is found again."""
    return {"event_id": event.event_id, "trace_id": kept_trace_id(event.trace_context)}


class StoreTelemetry:
    """Tells when the store fails and works again, and what it has of daemons that died.

    The calendar is ``ahead`` of the times in the store by so many seconds.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        metrics: Metrics,
        tracer: Tracer | None = None,
        *,
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._tracer = tracer
        self._ahead = ahead
        metrics.store_up.set(1)

    def store_failed(self, reason: str) -> None:
        """Say why nothing can be written."""
        self._metrics.store_up.set(0)
        self._metrics.store_failures.inc()
        self._log.error("store_failed", reason=reason)

    def store_recovered(self, after_seconds: float) -> None:
        """Say that the store works again."""
        self._metrics.store_up.set(1)
        self._log.warning("store_recovered", after_seconds=round(after_seconds, 3))

    def events_recovered(self, event_ids: Sequence[str]) -> None:
        """Count and log what a daemon that is gone was running."""
        self._metrics.pipeline_recovered.inc(len(event_ids))
        for event_id in event_ids:
            self._log.warning("event_recovered", event_id=event_id)

    def requests_cut_off(self, requests: Sequence[CutOff]) -> None:
        """End the spans that died with their daemon: those of their events hang from them."""
        for request in requests:
            trace = kept_trace(request.trace_context)
            context = span_context(trace)
            if self._tracer is None or context is None:
                continue
            attributes: dict[str, AttributeValue] = {"error.type": ErrorCode.INTERNAL_ERROR.value}
            if request.event_id is not None:
                attributes["ai_ticket.event_id"] = request.event_id
            span = self._tracer.go_on(
                "server.handle_event",
                SpanKind.SERVER,
                client_span_context(trace),
                context,
                attributes,
                started_at=round((request.began_at + self._ahead()) * 1e9),
            )
            span.fail("The daemon died before it had answered.")
            span.end()


class HostTelemetry:
    """Counts and logs what the host runs out of."""

    def __init__(self, log: FilteringBoundLogger, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    def exhaustion(self) -> Exhaustion:
        """Return what takes note of it."""
        return Exhaustion(
            say=self._say, count=lambda r: self._metrics.host_exhausted.labels(r.value).inc()
        )

    def _say(self, resource: Resource, where: str, times: int) -> None:
        self._log.warning(
            "host_exhausted",
            resource=resource.value,
            reason=resource.lack,
            where=where,
            times=times,
        )


class PoolTelemetry(PoolObserver):
    """Counts and logs what happens to the backends."""

    def __init__(self, log: FilteringBoundLogger, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    def health_changed(self, backend: Backend, before: Health) -> None:
        """Log a change of state; busy and ready alternate all day and are only for DEBUG."""
        health = backend.health
        fields = {
            "backend": backend.name,
            "state": health.state.value,
            "before": before.state.value,
            "reason": health.reason,
        }
        comes_and_goes = HealthState.UNLOADED in (health.state, before.state)
        if comes_and_goes or (before.usable and health.model_is_away):
            self._log.info("backend_state", **fields)
        elif not health.usable:
            self._log.warning("backend_unusable", **fields)
        elif before.usable:
            self._log.debug("backend_state", **fields)
        else:
            self._log.info("backend_usable", **fields)
        up = self._metrics.kobold_backend_up.labels(backend.name, backend.config.role.value)
        up.set(health.usable)
        if health.state is HealthState.UNAUTHORISED:
            self._log.error("backend_credential_refused", backend=backend.name)

    def aborted(self, backend: str, reason: AbortReason, end: AbortEnd) -> None:
        """Count a generation that was made to stop; log one that did not, or not yet."""
        if end.over:
            self._metrics.kobold_aborts.labels(backend, reason.value).inc()
        match end.slot:
            case SlotEnd.READING if not end.over:
                self._log.info(
                    "abort_after_prompt",
                    backend=backend,
                    reason=reason.value,
                    at_most_seconds=round(end.reading_seconds, 1),
                )
            case SlotEnd.TAKEN:
                self._log.warning("abort_without_effect", backend=backend, reason=reason.value)

    def restarted(self, backend: Backend) -> None:
        """Log and count a restart of a server."""
        self._metrics.kobold_backend_restarts.labels(backend.name).inc()
        self._log.warning("backend_restarted", backend=backend.name)

    def identified(self, backend: Backend) -> None:
        """Log what runs there, once for each change."""
        software = backend.health.software
        if software.better_kind is not None:
            self._log.warning(
                "backend_of_another_kind",
                backend=backend.name,
                kind=backend.config.kind.value,
                better_kind=software.better_kind,
            )
        if software.unanswered:
            self._log.warning(
                "backend_leaves_unanswered", backend=backend.name, paths=list(software.unanswered)
            )
        self._log.info(
            "backend_identified",
            backend=backend.name,
            version=software.version,
            features=list(software.features),
            newer_than_known=software.newer,
        )

    def probe_crashed(self, backend: Backend, error: Exception) -> None:
        """Log a fault of this program with its traceback."""
        self._log.error("probe_crashed", backend=backend.name, exc_info=error)

    def slots_contradicted(self, backend: Backend) -> None:
        """Warn of it, once for each setting."""
        self._log.warning(
            "backend_has_fewer_slots",
            backend=backend.name,
            max_in_flight=backend.config.max_in_flight,
            in_flight=backend.in_flight,
        )

    def woken(self, backend: Backend, problem: str | None) -> None:
        """Log that a server was made to load its model, or why it could not be."""
        if problem is None:
            self._log.info("backend_woken", backend=backend.name)
        else:
            self._log.warning("backend_not_woken", backend=backend.name, reason=problem)

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        """Log a pin; log and count a failover or a failback."""
        if before.pinned != after.pinned:
            self._log.warning("pin_changed", pinned=after.pinned, reason=after.detail)
        if before.role is after.role:
            return
        self._metrics.kobold_failovers.labels(from_backend, to_backend, after.reason.value).inc()
        failover = after.role is BackendRole.STANDBY
        self._log.warning(
            "failover" if failover else "failback",
            role=after.role.value,
            from_backend=from_backend,
            to_backend=to_backend,
            cause=after.reason.value,
            reason=after.detail,
            relapses=after.relapses,
        )

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        """Log and count an event sent to a server whose role does not serve."""
        self._metrics.kobold_guests.labels(backend.name, reason.value).inc()
        self._log.info("guest_sent", backend=backend.name, cause=reason.value)
