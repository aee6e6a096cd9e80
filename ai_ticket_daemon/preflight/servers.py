"""Whether the servers, as far as they answer now, are spoken to in the right dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.kobold.features import Told
from ai_ticket_daemon.backends.kobold.probe import PROPS_PATH
from ai_ticket_daemon.backends.observation import AttemptFailed
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.config.backends import BackendKind, Dialect
from ai_ticket_daemon.preflight.finding import Finding, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.config.backends import ServerConfig

ASK_SECONDS = 1.0
"""One that does not answer so soon is left out: this is advice, and no probe."""


def recommend(servers: Sequence[ServerConfig]) -> list[Finding]:
    """Return advice for each server that takes texts and whose model has a chat template."""
    return trio.run(_recommend, [s for s in servers if s.dialect is not Dialect.OPENAI_CHAT])


async def _recommend(servers: Sequence[ServerConfig]) -> list[Finding]:
    has_template: set[str] = set()

    async def ask(server: ServerConfig) -> None:
        if await _has_template(server):
            has_template.add(server.name)

    with trio.move_on_after(ASK_SECONDS):
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(ask, server)
    return [_advice(server) for server in servers if server.name in has_template]


def _advice(server: ServerConfig) -> Finding:
    now = (
        "a conversation is laid out with it, at the cost of one more request"
        if server.kind is BackendKind.KOBOLDCPP and server.use_template
        else "it is given the text without it"
    )
    return Finding(
        Weight.NOTE,
        f"backends.server {server.name}: its model has a chat template; use "
        f'`dialect = "openai-chat"` (with "{server.dialect}" {now})',
    )


async def _has_template(server: ServerConfig) -> bool:
    wire = Wire(
        server.url.rstrip("/").removesuffix("/v1"),
        password=server.password,
        connect_timeout_seconds=ASK_SECONDS,
    )
    try:
        props = await wire.call("GET", PROPS_PATH, timeout_seconds=ASK_SECONDS)
    except AttemptFailed:
        return False
    finally:
        await wire.aclose()
    return Told(props=props).chat_template is not None
