"""A KoboldCPP that answers as the real one was recorded to, one recording for each path."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends import factory
from ai_ticket_daemon.config.backends import Dialect, ServerConfig
from ai_ticket_daemon.testing.recordings import load_recordings
from tests.support.hostile_server import HostileServer, Odd, open_hostile_server
from tests.support.odd_answers import answer
from tests.support.project import ROOT
from tests.support.well_server import MODEL, PERF, WELL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ai_ticket_daemon.backends.generation import BackendClient

CHECK = "/api/extra/generate/check"
NEWER = load_recordings(ROOT / "tests" / "fixtures" / "kobold-1.115")


def recorded(name: str) -> Odd:
    """Return the answer of a recording, as it was sent."""
    told = NEWER[name].answer
    assert told is not None
    lines = [f"{told.version} {told.status} OK"]
    lines += [f"{header}: {value}" for header, value in told.headers.items()]
    return Odd("\r\n".join(lines).encode() + b"\r\n\r\n" + told.body.encode())


def perf(**figures: Any) -> Odd:
    """Return statistics of a server that has been up for long."""
    told = NEWER["perf_idle"].answer
    assert told is not None
    return Odd(answer(json.loads(told.body) | {"uptime": 1e6} | figures))


def checked(text: str) -> Odd:
    """Return what a server says that its last generation has made."""
    return Odd(answer({"results": [{"text": text}]}))


@asynccontextmanager
async def open_recorded_server(name: str, **odd: Odd) -> AsyncIterator[HostileServer]:
    """Serve generations as in a recording.

    Args:
        name: the recording.
        odd: what is answered else: ``perf``, ``check``, ``model``, ``props``; ``made`` instead of
            it.
    """
    paths = {
        "perf": PERF,
        "check": CHECK,
        "model": MODEL,
        "made": NEWER[name].path,
        "props": "/props",
    }
    others = {paths[key]: value for key, value in odd.items()}
    generation = {NEWER[name].path: recorded(name)}
    told = {"/api/extra/version": recorded("extra_version"), PERF: perf()}
    async with open_hostile_server({**WELL, **told, **generation, **others}) as server:
        yield server


@asynccontextmanager
async def open_recorded(
    name: str, *, dialect: Dialect = Dialect.OPENAI_CHAT, **odd: Odd
) -> AsyncIterator[BackendClient]:
    """Give a client of such a server, which speaks ``dialect`` and knows what it talks to."""
    async with open_recorded_server(name, **odd) as server:
        client = client_of(server.url, dialect)
        await client.probe()
        yield client
        await client.aclose()


def client_of(url: str, dialect: Dialect = Dialect.OPENAI_CHAT) -> BackendClient:
    """Return a client that waits as long as the test does."""
    config = ServerConfig(
        name="p",
        url=url,
        dialect=dialect,
        first_token_timeout_seconds=60.0,
        idle_timeout_seconds=60.0,
        total_timeout_seconds=60.0,
    )
    return factory.open_client(
        config, stall_seconds=lambda: 60.0, on_abort=lambda _reason, _end: None
    )
