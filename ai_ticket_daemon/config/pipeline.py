"""``[pipeline]``: how events are worked off, tried again and drained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ai_ticket_daemon.config.values.rules import boolean, integer, number, seconds
from ai_ticket_daemon.config.values.schema import Mistake, setting

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How events are worked off, tried again and drained."""

    live: ClassVar[bool] = True
    max_concurrency: int = field(
        default=8,
        metadata=setting(
            integer(1, 1024, "events"),
            "Most events in work at a time; each server's `max_in_flight` bounds it further.",
        ),
    )
    max_attempts: int = field(
        default=4,
        metadata=setting(
            integer(1, 100, "attempts"),
            "Attempts per event over all servers; waiting for a busy server costs none.",
        ),
    )
    backoff_seconds: float = field(
        default=0.2,
        metadata=setting(
            seconds(0, 3600),
            "Upper bound of the random wait before the first retry; it doubles with each retry.",
        ),
    )
    backoff_max_seconds: float = field(
        default=30.0,
        metadata=setting(seconds(0, 3600), "Longest wait before a retry."),
    )
    retry_budget: float = field(
        default=0.2,
        metadata=setting(
            number(0, 1),
            "Retries allowed as a share of the attempts made lately, so that a sick server is not "
            "sent a multiple of the load.",
        ),
    )
    drain_seconds: float = field(
        default=30.0,
        metadata=setting(seconds(0, 3600), "Time running generations get to finish at a stop."),
    )

    group_by_prefix: bool = field(
        default=False,
        metadata=setting(
            boolean,
            "Whether an event may be taken ahead of others because its prompt begins as the one "
            "before did on that server, which then reads only the rest.",
        ),
    )
    group_by_prefix_events: int = field(
        default=16,
        metadata=setting(
            integer(1, 256, "events"),
            "Most others an event is taken ahead of by `group_by_prefix`, and most that are taken "
            "ahead of it.",
        ),
    )
    group_by_prefix_seconds: float = field(
        default=60.0,
        metadata=setting(
            seconds(1, 3600),
            "No event is taken ahead of one that was first passed over so long ago, or has less "
            "time left before its deadline.",
        ),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        if self.backoff_seconds > self.backoff_max_seconds:
            yield Mistake(
                ("backoff_seconds",),
                f"must not exceed `backoff_max_seconds` ({self.backoff_max_seconds:g}), "
                f"but is {self.backoff_seconds:g}",
                ("backoff_max_seconds",),
            )
