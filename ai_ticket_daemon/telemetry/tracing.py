"""Traces: a provider that sends spans where the configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from ai_ticket_daemon import __version__
from ai_ticket_daemon.config.telemetry import OtlpProtocol, TelemetryConfig, TracesExporter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


def open_tracing(config: TelemetryConfig) -> TracerProvider | None:
    """Return a provider for the configured exporter; None if traces are off.

    The caller shuts it down at the end, which flushes what is left.
    """
    exporter = _exporter(config)
    if exporter is None:
        return None
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": config.service_name, "service.version": __version__}
        ),
        sampler=ParentBasedTraceIdRatio(config.sample_ratio),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(config: TelemetryConfig) -> SpanExporter | None:
    if config.traces is TracesExporter.NONE:
        return None
    wants_otlp = config.traces is TracesExporter.OTLP
    if wants_otlp or (config.traces is TracesExporter.AUTO and config.otlp_endpoint):
        return _otlp_exporter(config)
    return ConsoleSpanExporter(formatter=_one_line)


def _one_line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"


def _otlp_exporter(config: TelemetryConfig) -> SpanExporter:
    # Imported here: these bring requests or grpc along, which only this exporter needs.
    endpoint = (config.otlp_endpoint or "").rstrip("/")
    if config.otlp_protocol is OtlpProtocol.GRPC:
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPSpanExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415

    return http.OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
