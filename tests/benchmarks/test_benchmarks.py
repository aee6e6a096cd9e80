"""Measured side by side, as ratios within one run. Run by ``ops/bench.sh``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio

from tests.benchmarks.support import bare_forwarder, daemon, figure, load, simulated_kobold, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.benchmark

PAIRS = 7
CLIENTS = 16


def text(number: int) -> str:
    return f"Ticket {number}: the printer on floor {number % 7} prints nothing but stripes."


async def test_relay_reaches_most_of_the_rate_of_a_bare_forwarder(tmp_path: Path) -> None:
    async with (
        started(simulated_kobold("--instant", "--multiuser", "23"), "ready") as backend,
        started(bare_forwarder(backend.port), "ready") as bare,
        started(daemon(backend.port, tmp_path, max_in_flight=16), '"started"') as ours,
    ):
        for port in (bare.port, ours.port):
            await load(port, clients=CLIENTS, requests=500, content=text)
        ratios, rates, costs = [], [], []
        for _ in range(PAIRS):
            bare_rate = await load(bare.port, clients=CLIENTS, requests=1500, content=text)
            before = ours.cpu_seconds()
            our_rate = await load(ours.port, clients=CLIENTS, requests=1500, content=text)
            costs.append(1000 * (ours.cpu_seconds() - before) / 1500)
            ratios.append(our_rate / bare_rate)
            rates.append(our_rate)
    figure("events per second", rates)
    figure("CPU per event", costs, " ms")
    assert figure("rate, daemon / bare forwarder", ratios) >= 0.8


async def test_start_is_quick_and_idle_memory_small(tmp_path: Path) -> None:
    async with started(simulated_kobold("--instant"), "ready") as backend:
        seconds, sizes = [], []
        for _ in range(5):
            began = time.perf_counter()
            async with started(daemon(backend.port, tmp_path), '"started"') as ours:
                await wait_ready(ours.port)
                seconds.append(time.perf_counter() - began)
                await trio.sleep(2)
                sizes.append(ours.resident_bytes() / 2**20)
    assert figure("resident memory when idle", sizes, " MiB") <= 80
    assert figure("start to /ready", seconds, " s") <= 0.7


async def wait_ready(port: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"GET /ready HTTP/1.1\r\nhost: bench\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_memory_is_flat_over_fifty_thousand_events(tmp_path: Path) -> None:
    async with (
        started(simulated_kobold("--instant", "--multiuser", "23"), "ready") as backend,
        started(daemon(backend.port, tmp_path, max_in_flight=16), '"started"') as ours,
    ):
        sizes = []
        for _ in range(10):
            await load(ours.port, clients=CLIENTS, requests=5000, content=text)
            sizes.append(ours.resident_bytes() / 2**20)
            print(f"{len(sizes) * 5000} events: {sizes[-1]:.1f} MiB")
    figure("growth from 10,000 to 50,000 events", [sizes[-1] - sizes[1]], " MiB")
    assert sizes[-1] - sizes[1] < 4
