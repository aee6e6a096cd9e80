"""``[backends]``: how the servers are watched, and when to switch between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from ai_ticket_daemon.config.backend_server import (
    BackendKind,
    BackendRole,
    Dialect,
    ServerConfig,
)
from ai_ticket_daemon.config.values.rules import boolean, choice, integer, list_of, seconds
from ai_ticket_daemon.config.values.schema import Mistake, setting, table

if TYPE_CHECKING:
    from collections.abc import Iterator

# Who works with backends finds the whole vocabulary here.
__all__ = [
    "BackendKind",
    "BackendRole",
    "BackendsConfig",
    "Dialect",
    "EscapedTexts",
    "Failback",
    "ServerConfig",
]


class Failback(StrEnum):
    """Who decides that a recovered primary serves again."""

    AUTO = "auto"
    MANUAL = "manual"


class EscapedTexts(StrEnum):
    """In which messages the tokens of chat templates are made harmless."""

    USER = "user"
    ALL = "all"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class BackendsConfig:
    """How the servers are watched, and when to switch between primary and standby."""

    live: ClassVar[bool] = True
    probe_interval_seconds: float = field(
        default=2.0,
        metadata=setting(seconds(0.05, 3600), "Time between two health probes of a server."),
    )
    probe_fast_interval_seconds: float = field(
        default=0.5,
        metadata=setting(
            seconds(0.05, 3600),
            "The same while the state of the server is about to change.",
        ),
    )
    probe_timeout_seconds: float = field(
        default=2.0,
        metadata=setting(seconds(0.05, 3600), "Longest time for one probe."),
    )
    rise: int = field(
        default=2,
        metadata=setting(
            integer(1, 100, "probes"),
            "Good probes in a row after which a server counts as usable.",
        ),
    )
    fall: int = field(
        default=3,
        metadata=setting(
            integer(1, 100, "probes"),
            "Failed probes in a row after which a server counts as down.",
        ),
    )
    failback: Failback = field(
        default=Failback.AUTO,
        metadata=setting(
            choice(Failback),
            "`auto` returns to a recovered primary by itself, `manual` waits for the operator.",
        ),
    )
    failback_after_seconds: float = field(
        default=30.0,
        metadata=setting(
            seconds(0, 86_400),
            "How long a primary must have been healthy before `auto` returns to it.",
        ),
    )
    match_primary: bool = field(
        default=True,
        metadata=setting(
            boolean,
            "Use a standby without a `model` of its own only if it serves the primary's model, "
            "with at least its context.",
        ),
    )
    spill_to_standby: bool = field(
        default=False,
        metadata=setting(
            boolean,
            "Let standbys help out while the primaries are busy with requests of others.",
        ),
    )
    escape_template_tokens: EscapedTexts = field(
        default=EscapedTexts.USER,
        metadata=setting(
            choice(EscapedTexts),
            "Messages in which a space parts the tokens of chat templates (`<start_of_turn>`), so "
            "that a ticket begins no turn: those of the `user`, `all` or none (`off`).",
        ),
    )
    stall_timeout_seconds: float = field(
        default=60.0,
        metadata=setting(
            seconds(0.1, 86_400),
            "Time without progress after which a generating server counts as stuck.",
        ),
    )
    keep_standby_loaded: bool = field(
        default=False,
        metadata=setting(
            boolean,
            "Have a standby that has unloaded its model load it again at once, ahead of need.",
        ),
    )
    servers: tuple[ServerConfig, ...] = field(
        default=(),
        metadata=setting(
            list_of(table(ServerConfig)),
            "The servers, one `[[backends.server]]` each.",
            key="server",
        ),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        if self.probe_fast_interval_seconds > self.probe_interval_seconds:
            yield Mistake(
                ("probe_fast_interval_seconds",),
                f"must not exceed `probe_interval_seconds` ({self.probe_interval_seconds:g}), "
                f"but is {self.probe_fast_interval_seconds:g}",
                ("probe_interval_seconds",),
            )
        yield from self._server_conflicts()

    def _server_conflicts(self) -> Iterator[Mistake]:
        if not self.servers:
            yield Mistake(
                ("server",),
                "no server is configured; add [[backends.server]] with `name` and `url`, "
                "or set KOBOLDCPP_API_URL",
            )
        elif all(server.role is not BackendRole.PRIMARY for server in self.servers):
            yield Mistake(
                ("server",),
                'no server is a primary; give one of them `role = "primary"`, '
                "or set KOBOLDCPP_API_URL",
            )
        names: dict[str, int] = {}
        urls: dict[str, int] = {}
        for index, server in enumerate(self.servers):
            first = names.setdefault(server.name, index)
            if first != index:
                yield Mistake(
                    ("server", index, "name"),
                    f"server[{first}] has this name already; each needs its own",
                )
            first = urls.setdefault(server.url.lower(), index)
            if first != index:
                yield Mistake(
                    ("server", index, "url"),
                    f"server[{first}] has this URL already; the same server must not be listed "
                    "twice, it would get twice its `max_in_flight`",
                )
