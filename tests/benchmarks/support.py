"""Starts what is measured as processes of their own, and loads it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import PIPE, STDOUT
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

HERE = Path(__file__).parent
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Started:
    """A process that has said it is ready."""

    pid: int
    line: str
    seconds: float

    @property
    def port(self) -> int:
        match = re.search(r":(\d+)", self.line)
        assert match is not None, self.line
        return int(match[1])

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


@asynccontextmanager
async def started(command: Sequence[str], ready: str) -> AsyncIterator[Started]:
    """Run a process until the end of the block, from when it prints a line with ``ready``."""
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            lambda task_status: trio.run_process(  # noqa: ASYNC105 - start() awaits it
                command, stdout=PIPE, stderr=STDOUT, capture_stdout=False, check=False,
                task_status=task_status,
            )
        )  # fmt: skip
        assert process.stdout is not None
        seen = b""
        with trio.fail_after(30):
            while ready.encode() not in seen:
                chunk = await process.stdout.receive_some()
                assert chunk, f"{command} ended: {seen.decode()}"
                seen += chunk
        (line,) = [line for line in seen.decode().splitlines() if ready in line][:1]
        nursery.start_soon(_discard, process.stdout)
        yield Started(process.pid, line, time.perf_counter() - began)
        process.terminate()


async def _discard(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


def simulated_kobold(*options: str) -> list[str]:
    return [sys.executable, "-m", "ai_ticket_daemon.testing.kobold", "--port", "0", *options]


def bare_forwarder(backend_port: int) -> list[str]:
    return [
        sys.executable,
        str(HERE / "bare_forwarder.py"),
        f"http://127.0.0.1:{backend_port}",
    ]


def daemon(
    backend_port: int,
    folder: Path,
    *,
    max_in_flight: int = 1,
    kind: str = "koboldcpp",
    group_by_prefix: bool = False,
) -> list[str]:
    conf = folder / "ai-ticket.conf"
    conf.write_text(
        f"""
        store.url = "sqlite:///{folder}/events.db"
        http.bind = ["127.0.0.1:0"]
        metrics.bind = "127.0.0.1:0"
        telemetry.traces = "none"
        rate_limit.requests = 0
        pipeline.max_concurrency = {max(8, max_in_flight)}
        pipeline.group_by_prefix = {str(group_by_prefix).lower()}
        [[backends.server]]
        name = "primary"
        url = "http://127.0.0.1:{backend_port}"
        kind = "{kind}"
        max_in_flight = {max_in_flight}
        """
    )
    return [sys.executable, "-m", "ai_ticket_daemon", "--config", str(conf)]


async def load(port: int, *, clients: int, requests: int, content: Callable[[int], str]) -> float:
    """Send ``requests`` over ``clients`` kept connections; return requests per second."""
    numbers = iter(range(requests))

    async def one_client() -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            for number in numbers:
                body = json.dumps({"content": content(number), "max_tokens": 8}).encode()
                await stream.send_all(
                    b"POST /event HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%s" % (len(body), body)
                )
                await _read_answer(stream)

    began = time.perf_counter()
    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(one_client)
    return requests / (time.perf_counter() - began)


async def _read_answer(stream: trio.SocketStream) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some()
        assert chunk, "the server closed the connection"
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None, head
    missing = int(length[1]) - len(body)
    while missing > 0:
        chunk = await stream.receive_some()
        assert chunk, "the server closed the connection"
        missing -= len(chunk)


def figure(name: str, values: Sequence[float], unit: str = "") -> float:
    """Print least, middle and most of ``values``; return the middle."""
    middle = median(values)
    print(f"\n{name}: median {middle:.3f}{unit} ({min(values):.3f} to {max(values):.3f})")
    return middle
