"""``[control]``: how the operator talks to the running daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.rules import absolute_path, optional
from ai_ticket_daemon.config.schema import setting

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """How the operator talks to the running daemon."""

    socket: Path | None = field(
        default=None,
        metadata=setting(optional(absolute_path), "Unix socket of the control commands."),
    )
