"""The sections together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.backends import BackendsConfig
from ai_ticket_daemon.config.control import ControlConfig
from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.log import LogConfig
from ai_ticket_daemon.config.metrics import MetricsConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.config.telemetry import TelemetryConfig
from ai_ticket_daemon.config.values.addresses import TcpBind, UnixBind
from ai_ticket_daemon.config.values.schema import Mistake, section

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator can set; never changed, only replaced as a whole."""

    http: HttpConfig = field(
        default_factory=HttpConfig,
        metadata=section(HttpConfig),
    )
    auth: AuthConfig = field(
        default_factory=AuthConfig,
        metadata=section(AuthConfig),
    )
    rate_limit: RateLimitConfig = field(
        default_factory=RateLimitConfig,
        metadata=section(RateLimitConfig),
    )
    events: EventsConfig = field(
        default_factory=EventsConfig,
        metadata=section(EventsConfig),
    )
    pipeline: PipelineConfig = field(
        default_factory=PipelineConfig,
        metadata=section(PipelineConfig),
    )
    store: StoreConfig = field(
        default_factory=StoreConfig,
        metadata=section(StoreConfig),
    )
    backends: BackendsConfig = field(
        default_factory=BackendsConfig,
        metadata=section(BackendsConfig),
    )
    telemetry: TelemetryConfig = field(
        default_factory=TelemetryConfig,
        metadata=section(TelemetryConfig),
    )
    metrics: MetricsConfig = field(
        default_factory=MetricsConfig,
        metadata=section(MetricsConfig),
    )
    log: LogConfig = field(
        default_factory=LogConfig,
        metadata=section(LogConfig),
    )
    control: ControlConfig = field(
        default_factory=ControlConfig,
        metadata=section(ControlConfig),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together between sections."""
        for bind in self.http.bind:
            if isinstance(bind, TcpBind) and bind.overlaps(self.metrics.bind):
                yield Mistake(
                    ("metrics", "bind"),
                    f"{self.metrics.bind} overlaps {bind} of `http.bind`; use another port",
                    ("http",),
                )
            for key in ("socket", "view_socket"):
                path = getattr(self.control, key)
                if isinstance(bind, UnixBind) and bind.path == path:
                    yield Mistake(
                        ("control", key), f"{path} is in `http.bind`; use another path", ("http",)
                    )
