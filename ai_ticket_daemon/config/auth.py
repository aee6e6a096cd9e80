"""``[auth]``: who may use the HTTP surface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ai_ticket_daemon.config.values.rules import optional
from ai_ticket_daemon.config.values.schema import setting
from ai_ticket_daemon.config.values.tokens import Tokens, tokens_file


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may use the HTTP surface."""

    live: ClassVar[bool] = True
    tokens: Tokens | None = field(
        default=None,
        metadata=setting(
            optional(tokens_file),
            "File of access tokens, one `name:token` or `name:sha256:DIGEST` per line, scopes "
            "behind it if any; read at start and reload. Without it everyone who can connect may "
            "do everything.",
            key="tokens_file",
        ),
    )
