"""``[store]``: where events are kept, how many and how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ai_ticket_daemon.config.values.rules import integer, seconds
from ai_ticket_daemon.config.values.schema import Rule, not_a, setting, wrong

MEMORY = "memory:"
_SQLITE = "sqlite:///"
_KIND = f'"{_SQLITE}" and an absolute path, or "{MEMORY}"'


def _read_url(value: object) -> str:
    if not isinstance(value, str):
        raise not_a(_KIND, value)
    path = Path(value.removeprefix(_SQLITE))
    is_file = value.startswith(_SQLITE) and path.is_absolute() and path.name
    if value != MEMORY and (not is_file or not value.isprintable()):
        raise wrong(f'must be {_KIND}, as in "sqlite:////var/lib/ai-ticket/events.db"')
    return value


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where events are kept, how many and how long."""

    url: str = field(
        default="sqlite:////var/lib/ai-ticket/events.db",
        metadata=setting(
            Rule(_KIND, _read_url),
            "Where events are kept: a SQLite file on a local disk, which several daemons of one "
            "host may share. `memory:` keeps them in this process: they are lost at a restart.",
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

    @property
    def path(self) -> Path | None:
        """The file; None for the store in memory."""
        return None if self.url == MEMORY else Path(self.url.removeprefix(_SQLITE))
