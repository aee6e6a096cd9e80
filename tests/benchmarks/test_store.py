"""What the store on disk costs: beside the one in memory, and when very much waits in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.support import daemon, figure, load, simulated_kobold, started

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.benchmark

CLIENTS = 16


def text(number: int) -> str:
    return f"Ticket {number}: the printer on floor {number % 7} prints nothing but stripes."


async def test_a_waiting_event_costs_little_more_than_with_the_store_in_memory(
    tmp_path: Path,
) -> None:
    commands = {}
    async with started(simulated_kobold("--instant", "--multiuser", "23"), "ready") as backend:
        for name in ("disk", "memory"):
            folder = tmp_path / name
            folder.mkdir()
            commands[name] = daemon(backend.port, folder, max_in_flight=16)
        conf = tmp_path / "memory" / "ai-ticket.conf"
        url = f"sqlite:///{tmp_path / 'memory'}/events.db"
        conf.write_text(conf.read_text().replace(url, "memory:"))
        async with (
            started(commands["disk"], '"started"') as disk,
            started(commands["memory"], '"started"') as memory,
        ):
            for port in (disk.port, memory.port):
                await load(port, clients=CLIENTS, requests=500, content=text)
            ratios, costs = [], []
            for _ in range(7):
                cost = []
                for one in (disk, memory):
                    before = one.cpu_seconds()
                    await load(one.port, clients=CLIENTS, requests=1500, content=text)
                    cost.append(1000 * (one.cpu_seconds() - before) / 1500)
                costs.append(cost[0])
                ratios.append(cost[0] / cost[1])
    figure("CPU per waiting event, store on disk", costs, " ms")
    assert figure("CPU, store on disk / in memory", ratios) <= 1.25


def test_a_million_waiting_events_make_none_dearer(tmp_path: Path) -> None:
    script = Path(__file__).parent / "long_queue.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        check=True,
        text=True,
        timeout=600,
    )
    few, many = (json.loads(line) for line in done.stdout.splitlines())
    tell(few)
    tell(many)
    growth = (many["resident_bytes"] - few["resident_bytes"]) / 2**20
    print(f"resident memory grew by {growth:.1f} MiB")
    ratio = figure("claim and complete, a million queued / a thousand", [many["us"] / few["us"]])
    assert ratio <= 1.3
    assert growth < 40


def tell(measured: Mapping[str, float]) -> None:
    print(
        f"\n{measured['queued']} queued: {measured['us']:.0f} us of CPU and "
        f"{measured['wall_us']:.0f} us of time per claim and complete"
    )
