"""``[metrics]``: where Prometheus reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from ai_ticket_daemon.config.values.addresses import TcpBind, tcp_bind
from ai_ticket_daemon.config.values.schema import setting


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where Prometheus reads."""

    bind: TcpBind = field(
        default=TcpBind("0.0.0.0", 9464),  # noqa: S104 - scraped from another host as a rule
        metadata=setting(tcp_bind, "Address of the metrics page."),
    )
