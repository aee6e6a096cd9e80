"""A real daemon in front of servers that answer as they like: it stays up, calm and quick."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import BackendKind
from tests.support.attacks.attack_watch import Limits
from tests.support.attacks.attacked_daemon import attacked
from tests.support.hostile_server import Odd, open_hostile_server
from tests.support.odd_answers import PLAIN, STREAMED, Case
from tests.support.well_server import CHAT, WELL, probe_path, with_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.attacks.attacked_daemon import AttackedDaemon
    from tests.support.hostile_server import HostileServer

pytestmark = pytest.mark.system

GUARD_SECONDS = 300.0
READY_SECONDS = 60.0
LIMIT_SECONDS = 1.2
"""Long enough for a good answer on a machine that does other things, too."""
KINDS = pytest.mark.parametrize("kind", BackendKind)
CALM = Limits(log_kib=1024.0, expected=("backend_credential_refused",))
NAMES = [rb'"m\udcff"', rb'"\u0000\u001b[2J\u202e"', b'"' + b"x" * 300_000 + b'"', b"7", b"null"]


@asynccontextmanager
async def before(
    folder: Path, kind: BackendKind
) -> AsyncIterator[tuple[AttackedDaemon, HostileServer]]:
    """Run a daemon before one odd server of this kind, which is well at first."""
    completion = PLAIN["a completion"].odd
    async with open_hostile_server({**WELL, CHAT: completion}) as server:
        settings = (
            "backends.probe_timeout_seconds = 0.5",
            "backends.rise = 1",
            "backends.fall = 100",
            "pipeline.max_attempts = 1",
            "[[backends.server]]",
            'name = "odd"',
            f'kind = "{kind.value}"',
            f'url = "{server.url}"',
            f"first_token_timeout_seconds = {LIMIT_SECONDS}",
            f"idle_timeout_seconds = {LIMIT_SECONDS}",
        )
        with trio.fail_after(GUARD_SECONDS):
            async with attacked(folder, *settings) as daemon:
                yield daemon, server
                server.odd |= {**WELL, CHAT: completion}
                async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as client:
                    await ready(client)
                    reply = await client.post("/event", json={"content": "and now?"})
                    assert reply.json().get("completion") == "Hello.", reply.text
                await daemon.stop()


async def ready(client: httpx.AsyncClient) -> None:
    """Wait until the server is in use again."""
    with trio.fail_after(READY_SECONDS):
        while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110
            await trio.sleep(0.05)


@KINDS
@pytest.mark.parametrize("stream", [False, True])
async def test_no_answer_to_a_generation_costs_more_than_its_event(
    tmp_path: Path, kind: BackendKind, stream: bool
) -> None:
    table: dict[str, Case] = STREAMED if stream else PLAIN
    async with (
        before(tmp_path, kind) as (daemon, server),
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        daemon.watched(CALM) as seen,
    ):
        for name, case in table.items():
            server.odd[CHAT] = case.odd
            await ready(client)
            body = {"content": "Please greet me", "max_tokens": 16, "stream": stream}
            body["timeout_seconds"] = 3  # a server that is busy is asked until then
            reply = await client.post("/event", json=body)
            if case.text is None:
                assert case.code is not None
                assert "error" in reply.text, (name, reply.text)
            else:
                assert "error" not in reply.text, (name, reply.text)
        print(seen)


@KINDS
async def test_no_answer_to_a_probe_costs_more_than_the_server(
    tmp_path: Path, kind: BackendKind
) -> None:
    async with before(tmp_path, kind) as (daemon, server), daemon.watched(CALM):
        path = probe_path(kind)
        for case in PLAIN.values():
            if case.text is None:
                asked = len(server.seen)
                server.odd[path] = case.odd
                with trio.fail_after(READY_SECONDS):
                    while len(server.seen) < asked + 2:  # noqa: ASYNC110
                        await trio.sleep(0.02)


@KINDS
async def test_the_name_of_a_model_ends_no_daemon_and_fills_nothing(
    tmp_path: Path, kind: BackendKind
) -> None:
    async with (
        before(tmp_path, kind) as (daemon, server),
        httpx.AsyncClient(timeout=60) as client,
        daemon.watched(CALM),
    ):
        page = f"http://{daemon.metrics[0]}:{daemon.metrics[1]}/metrics"
        size = len((await client.get(page)).content)
        for number in range(40):
            name = NAMES[number % len(NAMES)] if number % 2 else b'"model %d"' % number
            path, odd = with_name(kind, name)
            server.odd[path] = odd
            # A server that seems to be another one is asked for its model anew.
            server.odd[probe_path(kind)] = (
                odd if kind is BackendKind.OPENAI else Odd(WELL[probe_path(kind)].raw)
            )
            asked = len(server.seen)
            with trio.fail_after(READY_SECONDS):
                while len(server.seen) < asked + 1:  # noqa: ASYNC110
                    await trio.sleep(0.02)
        assert len((await client.get(page)).content) < size + 4096
        health = (await client.get(f"{daemon.url}/health")).text
        assert len(health) < 8192


@KINDS
@pytest.mark.parametrize("name", [rb'"m\udcff"', rb'"\u0000\ud800"'])
async def test_a_name_with_half_a_character_at_the_start_is_no_end(
    tmp_path: Path, kind: BackendKind, name: bytes
) -> None:
    path, odd = with_name(kind, name)
    async with open_hostile_server({**WELL, CHAT: PLAIN["a completion"].odd, path: odd}) as server:
        lines = ("[[backends.server]]", 'name = "odd"', f'kind = "{kind.value}"')
        async with attacked(tmp_path, *lines, f'url = "{server.url}"') as daemon:
            async with (
                daemon.watched(),
                httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
            ):
                await ready(client)
                reply = await client.post("/event", json={"content": "hi"})
                assert reply.json()["completion"] == "Hello."
                await trio.sleep(
                    4
                )  # a fault in the persistence of the pool ended it within so long
            await daemon.stop()
