"""What it costs to be looked at: CPU per event, and memory while nobody takes the spans."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.support import HERE, figure, load, simulated_kobold, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.benchmark

PAIRS = 7
CLIENTS = 16
EVENTS = 1500
"""In each half of a pair."""


def text(number: int) -> str:
    return f"Ticket {number}: the printer on floor {number % 7} prints nothing but stripes."


def measured(folder: Path, backend_port: int, journal: str, *lines: str) -> list[str]:
    folder.mkdir()
    conf = folder / "ai-ticket.conf"
    conf.write_text(
        "\n".join(
            [
                'http.bind = ["127.0.0.1:0"]',
                'metrics.bind = "127.0.0.1:0"',
                f'store.url = "sqlite:///{folder}/events.db"',
                "rate_limit.requests = 0",
                "pipeline.max_concurrency = 16",
                *lines,
                "[[backends.server]]",
                'name = "primary"',
                f'url = "http://127.0.0.1:{backend_port}"',
                "max_in_flight = 16",
            ]
        )
    )
    return [sys.executable, str(HERE / "measured_daemon.py"), str(conf), journal]


async def test_being_looked_at_costs_at_most_a_fifth_of_the_cpu(tmp_path: Path) -> None:
    """Metrics, spans to a live collector and a line per event to journald, against none of it."""
    journal = str(tmp_path / "journal")
    async with (
        started(simulated_kobold("--instant", "--multiuser", "23"), "ready") as backend,
        started([sys.executable, str(HERE / "telemetry_sink.py"), journal], "ready") as sink,
        started(
            measured(
                tmp_path / "off",
                backend.port,
                "off",
                'telemetry.traces = "none"',
                'log.level = "error"',
            ),
            "ready",
        ) as off,
        started(
            measured(
                tmp_path / "on",
                backend.port,
                journal,
                f'telemetry.otlp_endpoint = "http://127.0.0.1:{sink.port}"',
                'log.format = "journald"',
            ),
            "ready",
        ) as on,
    ):
        for daemon in (off, on):
            await load(daemon.port, clients=CLIENTS, requests=500, content=text)
        costs: dict[str, list[float]] = {"off": [], "on": []}
        for _ in range(PAIRS):
            for name, daemon in (("off", off), ("on", on)):
                before = daemon.cpu_seconds()
                await load(daemon.port, clients=CLIENTS, requests=EVENTS, content=text)
                costs[name].append(1000 * (daemon.cpu_seconds() - before) / EVENTS)
    for name, values in costs.items():
        figure(f"CPU per event, telemetry {name}", values, " ms")
    ratios = [on_cost / off_cost for off_cost, on_cost in zip(*costs.values(), strict=True)]
    assert figure("CPU per event, on / off", ratios) <= 1.2


async def test_memory_stays_flat_while_the_collector_is_dead(tmp_path: Path) -> None:
    """200,000 events, whose spans nobody takes and whose log nobody reads."""
    with socket.socket() as dead, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stalled:
        dead.bind(("127.0.0.1", 0))  # refuses
        stalled.bind(str(tmp_path / "journal"))  # is full after some lines
        async with (
            started(simulated_kobold("--instant", "--multiuser", "23"), "ready") as backend,
            started(
                measured(
                    tmp_path / "on",
                    backend.port,
                    str(tmp_path / "journal"),
                    f'telemetry.otlp_endpoint = "http://127.0.0.1:{dead.getsockname()[1]}"',
                    'log.format = "journald"',
                ),
                "ready",
            ) as daemon,
        ):
            sizes = []
            for _ in range(10):
                for _ in range(4):
                    await load(daemon.port, clients=CLIENTS, requests=5000, content=text)
                sizes.append(daemon.resident_bytes() / 2**20)
                print(f"{len(sizes) * 20_000} events: {sizes[-1]:.1f} MiB")
    growth = sizes[-1] - sizes[1]
    figure("growth from 40,000 to 200,000 events", [growth], " MiB")
    assert growth < 8
