"""``[auth]``: who may use the HTTP surface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.rules import absolute_path, optional
from ai_ticket_daemon.config.schema import setting

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may use the HTTP surface."""

    tokens_file: Path | None = field(
        default=None,
        metadata=setting(
            optional(absolute_path),
            "File of access tokens; without it everyone who can connect may submit events.",
            live=True,
        ),
    )
