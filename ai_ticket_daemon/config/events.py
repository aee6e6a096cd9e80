"""``[events]``: the limits and defaults of one event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ai_ticket_daemon.config.values.rules import boolean, integer, seconds
from ai_ticket_daemon.config.values.schema import Mistake, setting
from ai_ticket_daemon.events.limits import MAX_TOKENS, TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """The limits and defaults of one event."""

    live: ClassVar[bool] = True
    max_content_bytes: int = field(
        default=256 * 1024,
        metadata=setting(
            integer(1, 1024**3, "bytes"),
            "Largest content of one event. `http.max_body_bytes` bounds the whole request.",
        ),
    )
    json_in_strings: bool = field(
        default=True,
        metadata=setting(
            boolean,
            "Whether a string of `content` that holds the JSON of a conversation is taken for "
            "that, with its roles; if not, each string is text, whoever wrote it.",
        ),
    )
    max_batch: int = field(
        default=1000,
        metadata=setting(integer(1, 100_000, "events"), "Most events in one `POST /events`."),
    )
    max_batch_bytes: int = field(
        default=16 * 1024 * 1024,
        metadata=setting(
            integer(1, 1024**3, "bytes"),
            "Largest body of one `POST /events`, in place of `http.max_body_bytes`.",
        ),
    )
    default_max_tokens: int = field(
        default=MAX_TOKENS.default,
        metadata=setting(
            integer(MAX_TOKENS.least, MAX_TOKENS.most, "tokens"),
            "Length of a completion where the event does not say `max_tokens`.",
        ),
    )
    max_max_tokens: int = field(
        default=4096,
        metadata=setting(
            integer(MAX_TOKENS.least, MAX_TOKENS.most, "tokens"),
            "Largest `max_tokens` an event may ask for.",
        ),
    )
    default_timeout_seconds: float = field(
        default=TIMEOUT_SECONDS.default,
        metadata=setting(
            seconds(0.1, TIMEOUT_SECONDS.most),
            "Time from acceptance to the deadline where the event does not say `timeout_seconds`.",
        ),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        if self.default_max_tokens > self.max_max_tokens:
            yield Mistake(
                ("default_max_tokens",),
                f"must not exceed `max_max_tokens` ({self.max_max_tokens}), "
                f"but is {self.default_max_tokens}",
                ("max_max_tokens",),
            )
