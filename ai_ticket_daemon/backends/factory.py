"""Making the client that fits a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.kobold.client import KoboldClient
from ai_ticket_daemon.backends.openai.client import OpenAIClient
from ai_ticket_daemon.config.backends import BackendKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.backends.kobold.abort import AbortObserver
    from ai_ticket_daemon.config.backends import ServerConfig


def open_client(
    config: ServerConfig, *, stall_seconds: Callable[[], float], on_abort: AbortObserver
) -> BackendClient:
    """Return the client of a server; nothing is connected yet.

    Args:
        config: the server.
        stall_seconds: the ``stall_timeout_seconds`` in force now.
        on_abort: is told of each generation that was aborted there; only KoboldCPP needs aborts.
    """
    match config.kind:
        case BackendKind.KOBOLDCPP:
            return KoboldClient(config, stall_seconds=stall_seconds, on_abort=on_abort)
        case BackendKind.OPENAI:
            return OpenAIClient(config, stall_seconds=stall_seconds)
