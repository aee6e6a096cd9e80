"""All that looks on, built once: metrics, traces, captures, and an observer for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import trio
from prometheus_client import CollectorRegistry

from ai_ticket_daemon.telemetry.capture import Capture
from ai_ticket_daemon.telemetry.client import InstrumentedClient
from ai_ticket_daemon.telemetry.guard import Failures, guarded
from ai_ticket_daemon.telemetry.http import (
    ConnectionTelemetry,
    HttpTelemetry,
    QuietHttpTelemetry,
)
from ai_ticket_daemon.telemetry.lag import LoopLag
from ai_ticket_daemon.telemetry.metrics import Metrics
from ai_ticket_daemon.telemetry.observers import (
    HostTelemetry,
    PipelineTelemetry,
    PoolTelemetry,
    StoreTelemetry,
)
from ai_ticket_daemon.telemetry.page import exporter
from ai_ticket_daemon.telemetry.traces.tracing import open_tracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.backends import ServerConfig
    from ai_ticket_daemon.config.log import LogConfig
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.telemetry.logs.logs import Logs

T = TypeVar("T")


class Instrumentation:
    """What looks on; what goes wrong in it never costs what it looks at.

    Args:
        config: what the metrics page and the traces are configured with, for as long as they run.
        log_config: what is in force of ``[log]``, read at each capture.
        logs: where log lines go.
        clock: the time of captures, and how far it is ahead of the host's.
    """

    def __init__(
        self, config: Config, *, log_config: Callable[[], LogConfig], logs: Logs, clock: Clock
    ) -> None:
        self._bind = config.metrics.bind
        self._logs = logs
        self._clock = clock
        self._lag = LoopLag()
        self.metrics = metrics = Metrics(CollectorRegistry())
        metrics.event_loop_lag.set_function(lambda: self._lag.worst_seconds)
        self.exhaustion = HostTelemetry(logs.logger(actor="host"), metrics).exhaustion()
        dropped = metrics.telemetry_spans_dropped
        self._tracing = open_tracing(
            config.telemetry,
            log=logs.logger(actor="traces"),
            dropped=lambda reason, number: dropped.labels(reason.value).inc(number),
        )
        self.tracer = self._tracing.tracer
        self.capture = Capture(
            log_config,
            logs.logger(actor="capture"),
            self.failures("capture"),
            self.exhaustion,
            clock=clock,
        )
        self.pool = PoolTelemetry(logs.logger(actor="pool"), metrics)
        """Looks on the servers; the history of the pool stands between."""

    async def start(self, start: Callable[..., Awaitable[Any]]) -> int:
        """Start the metrics page, the meter of the loop and the writer of captures.

        Args:
            start: starts an actor under its name; returns what it calls itself started with.

        Returns:
            The port of the metrics page.
        """
        port: int = await start(
            "metrics",
            exporter.run,
            registry=self.metrics.registry,
            exhaustion=self.exhaustion,
            bind=self._bind,
        )
        await start("lag", self._lag.run)
        await start("capture", self.capture.run)
        return port

    async def close(self) -> None:
        """Send the last spans, within the time that the exporter gives them."""
        try:
            await trio.to_thread.run_sync(self._tracing.close)
        except RuntimeError as error:
            if self.exhaustion.meets(error, "traces") is None:
                raise

    def failures(self, part: str) -> Failures:
        """Return who is told of what goes wrong where ``part`` looks on."""
        count = self.metrics.observer_failures.labels
        return Failures(part, self._logs.logger(actor=part), count=lambda name: count(name).inc())

    def guarded(self, observer: T, part: str) -> T:
        """Return ``observer`` such that what it raises is told and goes no further."""
        return guarded(observer, self.failures(part))

    def store(self) -> StoreTelemetry:
        """Return what looks on the store."""
        observer = StoreTelemetry(
            self._logs.logger(actor="store"),
            self.metrics,
            self.tracer,
            ahead=lambda: self._clock.ahead,
        )
        return self.guarded(observer, "store")

    def pipeline(self) -> PipelineTelemetry:
        """Return what looks on the pipeline."""
        log = self._logs.logger(actor="pipeline")
        observer = PipelineTelemetry(log, self.metrics, self.tracer, self.capture)
        return self.guarded(observer, "pipeline")

    def http(self) -> QuietHttpTelemetry:
        """Return what looks on requests."""
        log = self._logs.logger(actor="http")
        observer = HttpTelemetry(log, self.metrics, self.tracer, self.capture)
        return QuietHttpTelemetry(observer, self.failures("http"))

    def connections(self) -> ConnectionTelemetry:
        """Return what looks on connections."""
        return ConnectionTelemetry(self.metrics)

    def client(self, client: BackendClient, server: ServerConfig) -> BackendClient:
        """Return ``client`` such that what it does for ``server`` is measured and traced."""
        return InstrumentedClient(client, server, self.metrics, self.tracer)
