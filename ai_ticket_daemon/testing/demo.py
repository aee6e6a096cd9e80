"""The demo's backends: a primary and a standby, both simulated."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ai_ticket_daemon.config.tree import Config


@asynccontextmanager
async def open_demo(config: Config) -> AsyncIterator[Config]:
    """Run two simulated KoboldCPP servers for the length of a block.

    Returns ``config`` with the addresses of its servers, in order, replaced by theirs.
    """
    async with (
        open_simulated_kobold(KoboldSettings()) as primary,
        open_simulated_kobold(KoboldSettings()) as standby,
    ):
        servers = tuple(
            replace(server, url=simulated.url)
            for server, simulated in zip(config.backends.servers, (primary, standby), strict=True)
        )
        yield replace(config, backends=replace(config.backends, servers=servers))
