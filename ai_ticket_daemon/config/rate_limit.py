"""``[rate_limit]``: how many requests one client may make."""

from __future__ import annotations

from dataclasses import dataclass, field

from ai_ticket_daemon.config.rules import integer, seconds
from ai_ticket_daemon.config.schema import setting


@dataclass(frozen=True, slots=True)
class RateLimitConfig:
    """How many requests one client may make."""

    requests: int = field(
        default=120,
        metadata=setting(
            integer(0, 1_000_000, "requests"),
            "Requests each client may make per window; 0 turns the limit off. A client is a name "
            "of the tokens file, else an address. A batch counts as one request.",
            live=True,
        ),
    )
    window_seconds: float = field(
        default=60.0,
        metadata=setting(
            seconds(1, 86_400),
            "Time in which a client that made all its requests gets them all back, evenly.",
            live=True,
        ),
    )
