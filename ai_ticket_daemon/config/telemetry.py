"""``[telemetry]``: where traces go."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.addresses import url
from ai_ticket_daemon.config.values.rules import choice, number, optional, text
from ai_ticket_daemon.config.values.schema import Mistake, setting

if TYPE_CHECKING:
    from collections.abc import Iterator


class OtlpProtocol(StrEnum):
    """How spans travel to the collector."""

    HTTP_PROTOBUF = "http/protobuf"
    GRPC = "grpc"


class TracesExporter(StrEnum):
    """Where spans go."""

    AUTO = "auto"
    """``OTLP`` if there is an endpoint, else ``CONSOLE``."""
    OTLP = "otlp"
    CONSOLE = "console"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Where traces go."""

    service_name: str = field(
        default="ai-ticket",
        metadata=setting(text(), "Name of this service in traces."),
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata=setting(
            optional(url),
            "Base URL of the OpenTelemetry collector; for `http/protobuf`, `/v1/traces` is "
            "appended.",
        ),
    )
    otlp_traces_endpoint: str | None = field(
        default=None,
        metadata=setting(
            optional(url),
            "Full URL of the collector for spans, taken as it is; overrides `otlp_endpoint`.",
        ),
    )
    otlp_protocol: OtlpProtocol = field(
        default=OtlpProtocol.HTTP_PROTOBUF,
        metadata=setting(choice(OtlpProtocol), "How spans travel to the collector."),
    )
    traces: TracesExporter = field(
        default=TracesExporter.AUTO,
        metadata=setting(
            choice(TracesExporter),
            "Where spans go; `auto` is `otlp` with an `otlp_endpoint` and `console` without.",
        ),
    )
    sample_ratio: float = field(
        default=1.0,
        metadata=setting(number(0, 1), "Share of new traces that are recorded."),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        endpoint = self.otlp_endpoint or self.otlp_traces_endpoint
        if self.traces is TracesExporter.OTLP and endpoint is None:
            yield Mistake(("traces",), '"otlp" needs `otlp_endpoint` to be set', ("otlp_endpoint",))
