"""What it costs to accept events durably, beside a request that does nothing."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from statistics import median

import pytest
import trio

from tests.benchmarks.support import figure, started

pytestmark = pytest.mark.benchmark

CLIENTS = 64
BATCH = 1000
EVENT = json.dumps(
    {"content": "The printer on the third floor prints blank pages, please help.", "max_tokens": 32}
).encode()
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


def server(folder: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).parent / "intake_server.py"), str(folder)]


def request(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\nprefer: respond-async\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send(port: int, data: bytes, *, clients: int, requests: int) -> float:
    """Send the same request again and again; return requests per second."""
    numbers = iter(range(requests))

    async def one_client() -> None:
        while True:
            # The server closes a connection after 1000 requests.
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                for _ in range(999):
                    if next(numbers, None) is None:
                        return
                    await stream.send_all(data)
                    await read_answer(stream)

    began = time.perf_counter()
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(one_client)
    return requests / (time.perf_counter() - began)


async def read_answer(stream: trio.SocketStream) -> None:
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await more(stream)
    assert data.startswith(b"HTTP/1.1 202"), bytes(data)
    length = _LENGTH.search(data)
    assert length is not None
    missing = end + 4 + int(length[1]) - len(data)
    while missing > 0:
        missing -= len(await more(stream))


async def more(stream: trio.SocketStream) -> bytes | bytearray:
    chunk = await stream.receive_some(1 << 20)
    assert chunk, "the server closed the connection"
    return chunk


async def test_a_durable_202_is_nearly_as_cheap_as_doing_nothing(tmp_path: Path) -> None:
    async with started(server(tmp_path), "ready") as ours:
        nothing, event = request("/noop", b"{}" + b" " * (len(EVENT) - 2)), request("/event", EVENT)
        for data in (nothing, event):
            await send(ours.port, data, clients=CLIENTS, requests=1000)
        ratios, rates = [], []
        for _ in range(9):
            idle = await send(ours.port, nothing, clients=CLIENTS, requests=2000)
            rates.append(await send(ours.port, event, clients=CLIENTS, requests=2000))
            ratios.append(rates[-1] / idle)
    figure("durable events per second", rates)
    assert figure("rate, 202 / no-op", ratios) >= 0.85


@pytest.mark.parametrize("clients", [1, 4])
async def test_batches_are_accepted_by_the_ten_thousand(tmp_path: Path, clients: int) -> None:
    data = request("/events", (EVENT + b"\n") * BATCH, "application/x-ndjson")
    async with started(server(tmp_path), "ready") as ours:
        await send(ours.port, data, clients=clients, requests=10)
        rates, costs = [], []
        for _ in range(7):
            before = ours.cpu_seconds()
            rates.append(BATCH * await send(ours.port, data, clients=clients, requests=20))
            costs.append(1e6 * (ours.cpu_seconds() - before) / (20 * BATCH))
    figure("CPU per event", costs, " us")
    print(f"{clients} clients")
    figure("durable events per second", rates)
    assert median(rates) >= 20_000
