"""``[rate_limit]``: how many requests one client may make, and how many events hand over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ai_ticket_daemon.config.values.rules import integer, seconds
from ai_ticket_daemon.config.values.schema import setting


@dataclass(frozen=True, slots=True)
class RateLimitConfig:
    """How many requests one client may make, and how many events hand over."""

    live: ClassVar[bool] = True
    requests: int = field(
        default=120,
        metadata=setting(
            integer(0, 1_000_000, "requests"),
            "Requests each client may make per window; 0 turns the limit off. A client is a name "
            "of the tokens file, else an address. A batch counts as one request; see `events`.",
        ),
    )
    window_seconds: float = field(
        default=60.0,
        metadata=setting(
            seconds(1, 86_400),
            "Time in which a client that made all its requests gets them all back, evenly.",
        ),
    )
    events: int = field(
        default=0,
        metadata=setting(
            integer(0, 1_000_000_000, "events"),
            "Events each client may hand over per window, of which a batch counts as many as it "
            "holds; 0 for no limit of their own. A larger batch is answered "
            "`413 batch_too_large`.",
        ),
    )
