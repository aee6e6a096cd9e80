"""``[control]``: how the operator talks to the running daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ai_ticket_daemon.config.rules import absolute_path, optional
from ai_ticket_daemon.config.schema import setting

DEFAULT_SOCKET = Path("/run/ai-ticket/control.sock")


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
