"""Traces: where spans go, as the configuration and the standard ``OTEL_*`` variables say."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from ai_ticket_daemon import __version__
from ai_ticket_daemon.config.telemetry import OtlpProtocol, TelemetryConfig, TracesExporter
from ai_ticket_daemon.telemetry.traces.span_maker import SpanMaker
from ai_ticket_daemon.telemetry.traces.span_sender import SpanSender, batch_settings
from ai_ticket_daemon.telemetry.traces.spans import Tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.telemetry.traces.span_sender import DropReason


class Tracing:
    """Makes spans and sends them; ``tracer`` is None if traces are off."""

    def __init__(self, tracer: Tracer | None, sender: SpanSender | None) -> None:
        self.tracer = tracer
        self._sender = sender

    def close(self) -> None:
        """Send what is left; bounded, and to be called from a thread."""
        if self._sender is not None:
            self._sender.close()


def open_tracing(
    config: TelemetryConfig,
    *,
    log: FilteringBoundLogger,
    dropped: Callable[[DropReason, int], None],
    environ: Mapping[str, str] = os.environ,
) -> Tracing:
    """Return what makes spans, for the configured exporter.

    Headers, TLS, compression and time-outs of OTLP, limits of spans and the attributes of the
    resource are read from their standard variables by OpenTelemetry itself.

    Args:
        config: the ``[telemetry]`` section.
        log: told when the collector is away and when it is back.
        dropped: counts spans that are lost; called from any thread.
        environ: the standard variables that this module reads itself.
    """
    # Left alone, its modules would write what they think of their variables to standard error, past
    # the log; the configuration has been checked for that.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    exporter = None
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true":
        exporter = _exporter(config)
    if exporter is None:
        return Tracing(None, None)
    resource = Resource.create(
        {"service.name": config.service_name, "service.version": __version__}
    )
    settings: dict[str, Any] = batch_settings(environ)
    sender = SpanSender(SpanMaker(resource), exporter, log=log, dropped=dropped, **settings)
    return Tracing(Tracer(_sampler(config, environ), sender.put), sender)


def _sampler(config: TelemetryConfig, environ: Mapping[str, str]) -> Sampler | None:
    if environ.get("OTEL_TRACES_SAMPLER"):
        return TracerProvider(shutdown_on_exit=False).sampler  # as the variable says
    return None if config.sample_ratio == 1 else ParentBasedTraceIdRatio(config.sample_ratio)


def _exporter(config: TelemetryConfig) -> SpanExporter | None:
    if config.traces is TracesExporter.NONE:
        return None
    has_endpoint = config.otlp_endpoint or config.otlp_traces_endpoint
    if config.traces is TracesExporter.OTLP or (
        config.traces is TracesExporter.AUTO and has_endpoint
    ):
        return _otlp_exporter(config)
    return ConsoleSpanExporter(out=sys.stdout, formatter=_one_line)


def _one_line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"


def _otlp_exporter(config: TelemetryConfig) -> SpanExporter:
    # Imported here: these bring requests or grpc along, which only this exporter needs.
    base = (config.otlp_endpoint or "").rstrip("/")
    if config.otlp_protocol is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPSpanExporter(endpoint=config.otlp_traces_endpoint or base)
    from ai_ticket_daemon.telemetry.traces.span_encoder import SpanExporter as OverHttp  # noqa: PLC0415

    return OverHttp(config.otlp_traces_endpoint or f"{base}/v1/traces")
