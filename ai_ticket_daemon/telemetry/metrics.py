"""The metric families, on a registry passed in, so that two daemons fit in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from ai_ticket_daemon import __version__
from ai_ticket_daemon.events.state import FINAL_STATES
from ai_ticket_daemon.host.exhaustion import Resource
from ai_ticket_daemon.telemetry.guard import PARTS
from ai_ticket_daemon.telemetry.traces.span_sender import DropReason

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "ai_ticket"
LATENCY_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600,
)  # fmt: skip
"""Seconds; an LLM's answer takes from milliseconds (instant tests) to ten minutes."""
PROBE_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
"""Seconds; a probe is answered within a millisecond, or hardly ever."""


class Metrics:
    """Every family by name; whoever counts takes the one it needs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # When a series was begun is of no use to Prometheus here, and would double the page.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self.server_requests = self._counter(
            "server_requests", "HTTP requests answered.", "route", "method", "status"
        )
        self.server_request_failures = self._counter(
            "server_request_failures",
            "HTTP requests answered with an error.",
            "route", "method", "status", "error",
        )  # fmt: skip
        self.server_request_duration = self._histogram(
            "server_request_duration_seconds",
            "From the request's headers to the end of the answer.",
            "route", "method", "status",
        )  # fmt: skip
        self.server_requests_in_flight = self._gauge(
            "server_requests_in_flight", "HTTP requests being answered."
        )
        self.server_connections_refused = self._counter(
            "server_connections_refused",
            "Connections not served, or ended for what came over them.",
            "reason",
        )
        self.pipeline_events = self._counter("pipeline_events", "Events ended.", "outcome")
        for state in FINAL_STATES:  # there at 0, so that the first increase is seen
            self.pipeline_events.labels(state.value)
        self.order_in_force = self._gauge(
            "order_in_force", "1 while an operator's order stands in this daemon.", "order"
        )
        self.pipeline_handler_duration = self._histogram(
            "pipeline_handler_duration_seconds",
            "From the submission of an event to its outcome.",
            "outcome",
        )
        self.pipeline_batch_duration = self._histogram(
            "pipeline_batch_duration_seconds",
            "From the submission of a batch to its last outcome.",
        )
        self.pipeline_retries = self._counter(
            "pipeline_retries", "Attempts followed by another one.", "error"
        )
        self.pipeline_grouped_starts = self._counter(
            "pipeline_grouped_starts",
            "Prompts with a long beginning sent to a backend, with pipeline.group_by_prefix.",
            "backend", "place",
        )  # fmt: skip
        self.pipeline_queue_wait = self._histogram(
            "pipeline_queue_wait_seconds", "From the submission of an event to its first attempt."
        )
        self.pipeline_queue_depth = self._gauge(
            "pipeline_queue_depth", "Events in the store that have not ended.", "state"
        )
        self.pipeline_oldest_queued = self._gauge(
            "pipeline_oldest_queued_seconds", "Age of the event that has waited longest."
        )
        self.pipeline_in_flight = self._gauge("pipeline_in_flight", "Events in a worker's hands.")
        self.pipeline_max_concurrency = self._gauge(
            "pipeline_max_concurrency", "How many events may be in workers' hands at once."
        )
        self.kobold_requests = self._counter(
            "kobold_requests", "Attempts at a backend.", "backend", "dialect", "outcome"
        )
        self.kobold_request_failures = self._counter(
            "kobold_request_failures", "Attempts that failed.", "backend", "error"
        )
        self.kobold_request_duration = self._histogram(
            "kobold_request_duration_seconds", "Time of one attempt.", "backend"
        )
        self.kobold_tokens = self._counter(
            "kobold_tokens", "Tokens read (prompt) and made (completion).", "backend", "kind"
        )
        self.kobold_backend_up = self._gauge(
            "kobold_backend_up", "1 if the backend may be used.", "backend", "role"
        )
        self.kobold_backend_active = self._gauge(
            "kobold_backend_active", "1 if the backend's role serves now.", "backend"
        )
        self.kobold_backend_in_flight = self._gauge(
            "kobold_backend_in_flight", "Generations running on the backend for us.", "backend"
        )
        self.kobold_backend_slots = self._gauge(
            "kobold_backend_slots", "How many generations the backend takes at a time.", "backend"
        )
        self.kobold_backend_prompt_speed = self._gauge(
            "kobold_backend_prompt_tokens_per_second",
            "How fast the backend read its last prompt; 0 where it does not tell.",
            "backend",
        )
        self.kobold_backend_written_speed = self._gauge(
            "kobold_backend_written_tokens_per_second",
            "How fast the backend wrote its last completion; 0 where it does not tell.",
            "backend",
        )
        self.kobold_backend_info = self._gauge(
            "kobold_backend_info",
            "1 for the software that a backend runs now.",
            "backend", "kind", "version",
        )  # fmt: skip
        self.kobold_failovers = self._counter(
            "kobold_failovers", "Changes of the role that serves.",
            "from_backend", "to_backend", "reason",
        )  # fmt: skip
        self.kobold_probe_duration = self._histogram(
            "kobold_probe_duration_seconds",
            "Time of one probe.",
            "backend", "result",
            buckets=PROBE_BUCKETS,
        )  # fmt: skip
        self.kobold_wasted_seconds = self._counter(
            "kobold_wasted_seconds",
            "Time of attempts whose text was thrown away.",
            "backend", "cause",
        )  # fmt: skip
        self.kobold_wasted_tokens = self._counter(
            "kobold_wasted_tokens",
            "Tokens that were made and thrown away, as far as they were received or counted.",
            "backend", "cause",
        )  # fmt: skip
        self.kobold_wasted_attempts = self._counter(
            "kobold_wasted_attempts",
            "Attempts whose text was thrown away, and whether their tokens are known.",
            "backend", "cause", "tokens",
        )  # fmt: skip
        self.kobold_aborts = self._counter(
            "kobold_aborts", "Generations that were made to stop.", "backend", "reason"
        )
        self.kobold_guests = self._counter(
            "kobold_guests",
            "Events sent to a backend whose role does not serve.",
            "backend", "reason",
        )  # fmt: skip
        self.kobold_backend_restarts = self._counter(
            "kobold_backend_restarts", "Restarts of a backend that were noticed.", "backend"
        )
        self.config_reloads = self._counter(
            "config_reloads", "Reloads asked for, applied or refused.", "result"
        )
        self.config_last_reload_successful = self._gauge(
            "config_last_reload_successful", "1 if the last reload, or the start, was applied."
        )
        self.config_last_reload_success_timestamp = self._gauge(
            "config_last_reload_success_timestamp_seconds",
            "When a configuration was applied last, seconds since the Unix epoch.",
        )
        self.server_request_memory = self._gauge(
            "server_request_memory_bytes",
            "Bytes that bodies and events take until the events are accepted; "
            "`http.max_memory_bytes` bounds them.",
        )
        self.observer_failures = self._counter(
            "observer_failures", "Faults of what looks on; the work went on.", "part"
        )
        for part in PARTS:  # there at 0, so that the first increase is seen
            self.observer_failures.labels(part)
        self.tls_certificate_expiry = self._gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate of the HTTP front end expires, seconds since the Unix epoch; 0 "
            "without TLS.",
        )
        self.actor_restarts = self._counter(
            "actor_restarts", "Actors started again after a crash.", "actor"
        )
        self.host_exhausted = self._counter(
            "host_exhausted",
            "Times something had to wait because this host had run out of it.",
            "resource",
        )
        for resource in Resource:  # there at 0, so that the first increase is seen
            self.host_exhausted.labels(resource.value)
        self.event_loop_lag = self._gauge(
            "event_loop_lag_seconds", "How late a task was woken at worst within the last minute."
        )
        self.pipeline_outcomes_refused = self._counter(
            "pipeline_outcomes_refused", "Outcomes that came too late: the lease was lost."
        )
        self.pipeline_recovered = self._counter(
            "pipeline_recovered", "Events taken over from a daemon that was gone."
        )
        self.store_up = self._gauge("store_up", "1 if events can be written.")
        self.store_failures = self._counter("store_failures", "Times the store began to fail.")
        self.store_difference = self._gauge(
            "store_difference",
            "Events accepted less those in any state; not 0 means that events were lost.",
        )
        self.telemetry_spans_dropped = self._counter(
            "telemetry_spans_dropped",
            "Spans that never reached the collector.",
            "reason",
        )
        for dropped in DropReason:  # there at 0, so that the first increase is seen
            self.telemetry_spans_dropped.labels(dropped.value)
        self.telemetry_log_lines_dropped = self._counter(
            "telemetry_log_lines_dropped",
            "Log lines that journald, or whoever reads standard error, did not take in time.",
        )
        self._gauge("build_info", "The version that runs.", "version").labels(__version__).set(1)

    def keep_backends(self, kept: Mapping[str, str]) -> None:
        """Show no backend that a reload took out, nor one in the role it had before.

        Args:
            kept: the role of each backend there is, by name.
        """
        shown = (
            self.kobold_backend_up,
            self.kobold_backend_active,
            self.kobold_backend_slots,
            self.kobold_backend_prompt_speed,
            self.kobold_backend_written_speed,
            self.kobold_backend_info,
        )
        for gauge in shown:
            for family in gauge.collect():
                for labels in (sample.labels for sample in family.samples):
                    role = kept.get(labels["backend"])
                    if role is None or labels.get("role", role) != role:
                        gauge.remove(*labels.values())

    def show_version(self, backend: str, kind: str, version: str) -> None:
        """Show what a backend runs now, and no longer what it ran before."""
        now = {"backend": backend, "kind": kind, "version": version}
        for family in self.kobold_backend_info.collect():
            for labels in [sample.labels for sample in family.samples]:
                if labels["backend"] == backend and labels != now:
                    self.kobold_backend_info.remove(*labels.values())
        self.kobold_backend_info.labels(**now).set(1)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS
    ) -> Histogram:
        return Histogram(
            f"{_PREFIX}_{name}", about, labels, registry=self.registry, buckets=buckets
        )
