"""Clients by the thousand that hold memory: the process stays small, answers, and gives it back."""

from __future__ import annotations

import json
import resource
import socket
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ai_ticket_daemon.ctl.client import Client as ControlClient
from tests.attacks.test_bodies import LONG, MIB
from tests.support.attacks.attack_watch import Limits
from tests.support.attacks.attacked_daemon import attacked
from tests.support.hostile_server import Odd, open_hostile_server
from tests.support.odd_answers import answer, chat, delta, stream
from tests.support.well_server import CHAT, WELL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.support.attacks.attacked_daemon import AttackedDaemon

    Part = Callable[[trio.SocketStream], Awaitable[None]]

pytestmark = pytest.mark.system

CLIENTS = 1000 if LONG else 200
DESCRIPTORS = 4096
GUARD_SECONDS = 900 if LONG else 300
AT_ONCE = 64
MOMENT_SECONDS = 1.0
LIMITS = Limits(lag_seconds=1.0, peak_mib=300, kept_mib=40, log_kib=4096, live_seconds=10)
SETTINGS = (
    f"http.max_connections = {CLIENTS + 100}",
    "http.max_connections_per_address = 0",
    "http.body_timeout_seconds = 300",
)
TEXT = "\U0001f600" * (64 * 1024 - 1)
"""The largest content there may be, of characters that take the most memory."""


@asynccontextmanager
async def flooded(folder: Path, *settings: str) -> AsyncIterator[AttackedDaemon]:
    """Run a daemon that may have all these connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS), hard))
    try:
        with trio.fail_after(GUARD_SECONDS):
            async with attacked(folder, *SETTINGS, *settings) as daemon:
                yield daemon
                await daemon.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def crowd(daemon: AttackedDaemon, client: Part, *, is_paused: bool = False) -> None:
    """Have each client do its part over a connection of its own; then all hang up together.

    They do so when the daemon has done what it will do for them.
    """
    all_done, left = trio.Event(), CLIENTS
    turn = trio.CapacityLimiter(AT_ONCE)

    async def take_part() -> None:
        nonlocal left
        async with turn:
            stream = await connect(daemon)
            try:
                await client(stream)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        async with stream:
            left -= 1
            if not left:
                if not is_paused:
                    await at_rest(daemon)
                all_done.set()
            await all_done.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(take_part)


async def at_rest(daemon: AttackedDaemon) -> None:
    """Wait until no event is being generated, nor will be."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
        while True:
            health = (await client.get("/health")).json()
            in_flight = sum(server["in_flight"] for server in health["backends"])
            if not in_flight and not health["queue"]["queued"]:
                return
            await trio.sleep(0.05)


async def connect(daemon: AttackedDaemon) -> trio.SocketStream:
    """Return a connection into which the kernel takes as little as it can."""
    plain = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await plain.connect(daemon.http)
    return trio.SocketStream(plain)


def head(length: int, route: str = "/event") -> bytes:
    return (
        f"POST {route} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


def largest(**more: object) -> bytes:
    """Return a request of the largest event."""
    event = json.dumps({"content": TEXT, **more}, ensure_ascii=False).encode()
    body = event[:-1] + b" " * (MIB - len(event)) + b"}"
    return head(len(body)) + body


async def post(stream: trio.SocketStream, request: bytes, ahead: bytes = b"") -> bytes:
    """Send a request; return what is answered within a moment, which may be nothing.

    ``ahead`` is sent behind it, as much of it as is taken within that moment.
    """
    await send(stream, request)
    answer = b""
    with trio.move_on_after(MOMENT_SECONDS):
        async with trio.open_nursery() as nursery:
            if ahead:
                nursery.start_soon(send, stream, ahead)
            with suppress(trio.BrokenResourceError):
                answer = bytes(await stream.receive_some(4096))
            nursery.cancel_scope.cancel()
    return answer


async def send(stream: trio.SocketStream, data: bytes) -> None:
    """Send ``data``, as far as the other side takes it before it hangs up."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def change(daemon: AttackedDaemon, operation: str) -> None:
    client = ControlClient(daemon.control, 20)
    await trio.to_thread.run_sync(partial(client.change, operation))


async def test_clients_that_wait_with_the_largest_bodies_take_little(tmp_path: Path) -> None:
    request = largest()
    answers: list[bytes] = []

    async def wait(stream: trio.SocketStream) -> None:
        answers.append(await post(stream, request, request[:200_000]))

    async with flooded(tmp_path) as daemon:
        await change(daemon, "pause")
        async with daemon.watched(LIMITS):
            await crowd(daemon, wait, is_paused=True)
        refused = [answer for answer in answers if answer]
        print(f"{CLIENTS - len(refused)} wait, {len(refused)} were refused")
        assert all(b" 503 " in answer.splitlines()[0] for answer in refused), refused[:3]
        assert len(refused) < CLIENTS / 2


async def test_bodies_that_do_not_end_take_what_the_budget_allows(tmp_path: Path) -> None:
    answers: list[bytes] = []
    turns = iter(range(CLIENTS))

    async def dawdle(stream: trio.SocketStream) -> None:
        if next(turns) % 4:
            request = head(MIB) + b'{"content":"' + b"x" * (MIB - 100)
        else:
            request = head(16 * MIB, "/events") + b"[" + b" " * (4 * MIB)
        answers.append(await post(stream, request))

    async with flooded(tmp_path) as daemon:
        async with daemon.watched(LIMITS):
            await crowd(daemon, dawdle)
        refused = [answer for answer in answers if answer]
        print(f"{CLIENTS - len(refused)} are let in, {len(refused)} were refused")
        assert refused
        assert all(b" 503 " in answer.splitlines()[0] for answer in refused), refused[:3]


def long_text(*, streamed: bool) -> Odd:
    """Return about the longest text that a server may send to an event of 4096 tokens."""
    if streamed:
        return Odd(stream(*[delta("x" * 8_000) for _ in range(64)], delta(finish="stop")))
    return Odd(answer(chat("x" * 512_000)))


@pytest.mark.parametrize("streamed", [True, False], ids=["streams", "answers"])
async def test_completions_that_nobody_reads_take_little(tmp_path: Path, streamed: bool) -> None:
    answers: Counter[str] = Counter()
    async with open_hostile_server({**WELL, CHAT: long_text(streamed=streamed)}) as server:
        settings = (
            "[[backends.server]]", 'name = "odd"', 'kind = "openai"', f'url = "{server.url}"',
            "max_in_flight = 8",
        )  # fmt: skip
        body = json.dumps({"content": "a", "stream": streamed, "max_tokens": 4096}).encode()

        async def look_away(stream: trio.SocketStream) -> None:
            await stream.send_all(head(len(body)) + body)
            told = bytes(await stream.receive_some(64))
            answers[told.split()[1].decode()] += 1

        async with flooded(tmp_path, *settings) as daemon:
            async with daemon.watched(replace(LIMITS, kept_mib=64) if LONG else LIMITS):
                await crowd(daemon, look_away)
            if LONG:  # Small objects leave holes that no other may have: the next crowd fills them.
                async with daemon.watched(replace(LIMITS, kept_mib=8)):
                    await crowd(daemon, look_away)
        print(answers)
        assert answers["200"] > 20
        assert set(answers) <= {"200", "503"}
