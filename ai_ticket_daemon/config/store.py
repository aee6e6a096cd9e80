"""``[store]``: where events are kept, how many and how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from ai_ticket_daemon.config.rules import integer, seconds, text
from ai_ticket_daemon.config.schema import setting


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where events are kept, how many and how long."""

    url: str = field(
        default="memory:",
        metadata=setting(
            text(1000),
            "Where events are kept. `memory:` keeps them in this process: they are lost at a "
            "restart.",
        ),
    )
    max_queued: int = field(
        default=100_000,
        metadata=setting(
            integer(1, 10_000_000, "events"),
            "Most events waiting; further ones are answered `503 queue_full`.",
            live=True,
        ),
    )
    retention_seconds: float = field(
        default=604_800.0,
        metadata=setting(
            seconds(0, 315_360_000), "How long a finished event can be asked for.", live=True
        ),
    )
    lease_seconds: float = field(
        default=30.0,
        metadata=setting(
            seconds(1, 3600),
            "Time after which an event held by a worker that is gone goes back into the queue.",
        ),
    )
