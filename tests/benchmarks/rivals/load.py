"""The clients: wrk with requests as fast as they are answered, and readers of streams."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from tests.benchmarks.rivals.contestants import HERE, STREAMED, Missing, program
from tests.benchmarks.rivals.paced_backend import DELTA_TEXT
from tests.benchmarks.rivals.processor import LOADED_FROM

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.benchmarks.rivals.contestants import Contestant, Running

FIRST_DELTA_SECONDS = 60


class NothingAnswered(Exception):
    """It answered no request in the time it had, or not with a success."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What came of a few seconds of requests."""

    per_second: float
    p50_ms: float
    cpu_ms: float
    """Of the contestant, per request."""


def wrk(
    running: Running,
    folder: Path,
    *,
    connections: int,
    seconds: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    path: str | None = None,
) -> Rate:
    """Send the same request again and again over kept connections.

    Raises:
        NothingAnswered: some were not answered with a success, or none at all.
    """
    contestant = running.contestant
    file = folder / f"body-{contestant.port}"
    file.write_bytes(json.dumps(contestant.body).encode() if body is None else body)
    sent = {"content-type": "application/json", **contestant.headers, **(headers or {})}
    command = [
        *("taskset", "-c", str(LOADED_FROM), program("wrk", "wrk"), "-t1", f"-c{connections}"),
        *(f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / "post.lua")),
        f"http://127.0.0.1:{contestant.port}{path or contestant.path}",
        *("--", str(file), *(f"{name}: {value}" for name, value in sent.items())),
    ]
    before = running.cpu_seconds()
    output = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120).stdout
    cpu_seconds = running.cpu_seconds() - before
    return read_figures(output, contestant.name, cpu_seconds)


def read_figures(output: str, name: str, cpu_seconds: float) -> Rate:
    """Return what wrk found, from what ``post.lua`` prints at its end."""
    figures = json.loads(output.strip().splitlines()[-1])
    requests = figures["requests"]
    if not requests or figures["refused"]:
        raise NothingAnswered(f"{name}: {figures}")
    return Rate(requests / figures["seconds"], figures["p50_ms"], 1000 * cpu_seconds / requests)


@dataclass(frozen=True, slots=True)
class Relayed:
    """What came of a few seconds of streams."""

    deltas_per_second: float
    cpu_us: float
    """Of the contestant, per delta."""
    core: float
    """The share of the core that it took."""


async def read_streams(running: Running, *, streams: int, seconds: float) -> Relayed:
    """Read so many streams at once; count what comes while all of them run."""
    deltas, begun, all_begun = 0, 0, trio.Event()

    async def read_one(after_seconds: float) -> None:
        nonlocal deltas, begun
        await trio.sleep(after_seconds)
        stream = await trio.open_tcp_stream("127.0.0.1", running.contestant.port)
        async with stream:
            await stream.send_all(_request(running.contestant))
            seen = False
            while data := await stream.receive_some(65_536):
                if b" 500 Internal" in data:
                    raise Missing(f"streams of {running.contestant.name}: it answers 500")
                # By the text: pieces that are ready together may come as one.
                found = data.count(DELTA_TEXT)
                deltas += found
                if found and not seen:
                    seen, begun = True, begun + 1
                    if begun == streams:
                        all_begun.set()
            raise Missing(f"streams of {running.contestant.name}: it ends them")

    async with trio.open_nursery() as nursery:
        for number in range(streams):
            nursery.start_soon(read_one, number / streams)
        with trio.fail_after(FIRST_DELTA_SECONDS):
            await all_begun.wait()
        await trio.sleep(0.5)
        began_at, cpu, count = trio.current_time(), running.cpu_seconds(), deltas
        await trio.sleep(seconds)
        passed = trio.current_time() - began_at
        cpu, count = running.cpu_seconds() - cpu, deltas - count
        nursery.cancel_scope.cancel()
    return Relayed(count / passed, 1e6 * cpu / count, cpu / passed)


def _request(contestant: Contestant) -> bytes:
    body = json.dumps({**contestant.body, **STREAMED}).encode()
    headers = {
        "host": "bench",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **contestant.headers,
    }
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return f"POST {contestant.path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body
