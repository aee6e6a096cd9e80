"""``[control]``: how the operator talks to the running daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.rules import absolute_path, optional
from ai_ticket_daemon.config.values.schema import Mistake, setting

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SOCKET = Path("/run/ai-ticket/control.sock")
DEFAULT_VIEW_SOCKET = Path("/run/ai-ticket-view/ai-ticket.sock")


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """How the operator talks to the running daemon."""

    socket: Path | None = field(
        default=DEFAULT_SOCKET,
        metadata=setting(
            optional(absolute_path),
            "Unix socket for `ai-ticketctl`, for the daemon's user and group. Under systemd the "
            "default stands in the service's own `RUNTIME_DIRECTORY`. One that cannot be opened is "
            "logged, and the daemon goes on without.",
        ),
    )
    view_socket: Path | None = field(
        default=DEFAULT_VIEW_SOCKET,
        metadata=setting(
            optional(absolute_path),
            "Unix socket for those of `ai-ticketctl` who may look and not act: for the daemon's "
            "user and the group that new files in its directory get (`chmod g+s`). Under systemd "
            "the default has the name of the service's `RUNTIME_DIRECTORY`; elsewhere the default "
            "means none while its directory is missing. One that cannot be opened is logged.",
        ),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        if self.socket is not None and self.socket == self.view_socket:
            yield Mistake(
                ("view_socket",),
                "is `socket`, too; whoever may only look needs a socket of their own",
                ("socket",),
            )
