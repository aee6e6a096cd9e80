"""The three APIs spoken to servers that generate; pure functions, a module for each."""

from __future__ import annotations

from ai_ticket_daemon.backends.dialects import kobold, openai_chat, openai_completions
from ai_ticket_daemon.backends.dialects.dialect import Piece, WireDialect
from ai_ticket_daemon.config.backends import Dialect

__all__ = ["Piece", "WireDialect", "wire_dialect"]


def wire_dialect(dialect: Dialect) -> WireDialect:
    """Return how ``dialect`` is spoken."""
    match dialect:
        case Dialect.OPENAI_CHAT:
            return openai_chat.DIALECT
        case Dialect.OPENAI_COMPLETIONS:
            return openai_completions.DIALECT
        case Dialect.KOBOLD:
            return kobold.DIALECT
