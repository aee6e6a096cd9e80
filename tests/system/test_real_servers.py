"""Failover between two real model servers: llama.cpp with a small model, as in the quickstart."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import BackendKind, BackendRole, ServerConfig
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.llama import ModelServerError, find_model
from tests.benchmarks.support import Started, started
from tests.support.system.debian_packages import cannot_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.system

LONG = {"content": "Tell me everything about printers.", "max_tokens": 400, "temperature": 0}
PATIENCE_SECONDS = 600
"""How long two model servers may compute on a machine that is busy with others."""
PROBE_SECONDS = 5
"""How long a server that computes on a busy machine may take for a look."""
SHORT = {"content": "Say hello.", "max_tokens": 8}


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "ai_ticket_daemon.testing.llama", "--threads", "1", *options]


@dataclass(frozen=True)
class House:
    primary: Started
    daemon: RunningDaemon
    client: httpx.AsyncClient

    async def until_state(self, name: str, *states: str, seconds: float = 60) -> None:
        with trio.fail_after(seconds):
            while True:
                report = (await self.client.get("/health")).json()
                if any(b["name"] == name and b["state"] in states for b in report["backends"]):
                    return
                await trio.sleep(0.05)

    async def until_the_primary_generates(self) -> None:
        with trio.fail_after(60):
            while True:
                report = (await self.client.get("/health")).json()
                if any(b["name"] == "primary" and b["in_flight"] for b in report["backends"]):
                    return
                await trio.sleep(0.02)


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    try:
        find_model()
    except ModelServerError as error:
        cannot_run(str(error))
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(started(command("--port", "0"), "http://"))
            for _ in range(2)
        ]
        configs = [
            ServerConfig(
                name=role.value,
                url=f"http://127.0.0.1:{server.port}",
                role=role,
                kind=BackendKind.OPENAI,
            )
            for server, role in zip(servers, BackendRole, strict=True)
        ]
        config = config_for(*configs)
        rules = replace(config.backends, probe_timeout_seconds=PROBE_SECONDS)
        daemon = await stack.enter_async_context(open_daemon(replace(config, backends=rules)))
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=daemon.url, timeout=PATIENCE_SECONDS)
        )
        own = House(servers[0], daemon, client)
        await own.until_state("standby", "ready", "busy")
        yield own


async def test_a_killed_server_is_replaced_unnoticed_and_used_again_once_restarted() -> None:
    async with house() as own:
        answers: list[dict[str, Any]] = []

        async def wait() -> None:
            answers.append((await own.client.post("/event", json=LONG)).json())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await own.until_the_primary_generates()
            os.kill(own.primary.pid, signal.SIGKILL)
        assert answers[0]["backend"] == "standby", answers
        assert answers[0]["usage"]["completion_tokens"] > 8
        await own.until_state("primary", "down")
        async with own.client.stream("POST", "/event", json=SHORT | {"stream": True}) as stream:
            lines = [line async for line in stream.aiter_lines() if line.startswith("data: ")]
        assert json.loads(lines[-1].removeprefix("data: "))["backend"] == "standby"
        async with started(command("--port", str(own.primary.port)), "http://"):
            await own.until_state("primary", "ready", "busy")
            assert own.daemon.daemon.pool.failback()
            answer = (await own.client.post("/event", json=SHORT)).json()
            assert answer["backend"] == "primary"


async def test_a_stream_that_had_begun_ends_with_an_error_when_its_server_is_killed() -> None:
    async with house() as own:
        frames = []
        async with own.client.stream("POST", "/event", json=LONG | {"stream": True}) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    frames.append(json.loads(line.removeprefix("data: ")))
                    if len(frames) == 3:
                        os.kill(own.primary.pid, signal.SIGKILL)
        assert frames[-1]["done"] is True
        assert frames[-1]["error"] == "api_connection_error"
        assert "".join(frame.get("delta", "") for frame in frames[:-1])


async def test_a_server_that_stands_still_is_replaced_and_comes_back() -> None:
    async with house() as own:
        answers: list[dict[str, Any]] = []

        async def wait() -> None:
            answers.append((await own.client.post("/event", json=LONG)).json())

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await own.until_the_primary_generates()
                os.kill(own.primary.pid, signal.SIGSTOP)
                # Its next probe notices; a generation has 60 s for its next token.
                await own.until_state("primary", "down", seconds=55)
            assert answers[0]["backend"] == "standby", answers
        finally:
            os.kill(own.primary.pid, signal.SIGCONT)
        await own.until_state("primary", "ready", "busy")
