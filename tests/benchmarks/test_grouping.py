"""Interleaved events of four kinds, with ``group_by_prefix`` off and on: what a server is spared.

Each kind has a system message of its own, as long as those of tickets are. Off and on take turns,
in front of a simulated KoboldCPP, which reads 500 tokens per second, and of a language model behind
llama.cpp.
"""

from __future__ import annotations

import json
import random
import sys
import time
import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.benchmarks.support import daemon, figure, simulated_kobold, started

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.benchmark

KINDS, PAIRS, MAX_TOKENS, GIVEN_SECONDS = 4, 3, 8, 3600
WORDS = ("ticket", "printer", "mail", "user", "network", "door", "badge", "screen", "the", "when")
LLAMA = [sys.executable, "-m", "ai_ticket_daemon.testing.llama", "--port", "0"]
SERVERS = [
    pytest.param(simulated_kobold(), "ready", "koboldcpp", 40, id="simulated"),
    pytest.param(
        LLAMA,
        "http://",
        "openai",
        16,  # each takes seconds
        id="llama.cpp",
        marks=pytest.mark.skipif(not find_spec("xllamacpp"), reason="bootstrap --with-model"),
    ),
]


def events(number: int) -> list[dict[str, Any]]:
    """Return events whose kinds take turns at random, the same each time."""
    draw = random.Random(1)
    rules = [" ".join(draw.choices(WORDS, k=400)) for _ in range(KINDS)]
    made = []
    for place in range(number):
        messages = [
            {"role": "system", "content": draw.choice(rules)},
            {"role": "user", "content": f"Ticket {place}: my printer is on fire. What now?"},
        ]
        made.append(
            {
                "content": {"messages": messages},
                "max_tokens": MAX_TOKENS,
                "timeout_seconds": GIVEN_SECONDS,
            }
        )
    return made


def run_all(port: int, number: int) -> tuple[float, list[float]]:
    """Submit the events at once; return how long all took, and when each one ended."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/events",
        json.dumps(events(number)).encode(),
        {"content-type": "application/json", "accept": "application/x-ndjson"},
    )
    began, ended = time.perf_counter(), []
    with urllib.request.urlopen(request, timeout=GIVEN_SECONDS) as answer:
        for line in filter(bytes.strip, answer):  # blank ones are heartbeats
            assert json.loads(line)["status"] == 200, line
            ended.append(time.perf_counter() - began)
    assert len(ended) == number
    return ended[-1], ended


@pytest.mark.parametrize(("command", "ready", "kind", "number"), SERVERS)
async def test_events_that_begin_alike_take_less_time_if_they_follow_each_other(
    command: Sequence[str], ready: str, kind: str, number: int, tmp_path: Path
) -> None:
    times: dict[bool, list[float]] = {False: [], True: []}
    means: dict[bool, list[float]] = {False: [], True: []}
    async with started(command, ready) as backend:
        for pair in range(PAIRS):
            for on in (False, True):
                folder = tmp_path / f"{pair}-{on}"
                folder.mkdir()
                line = daemon(backend.port, folder, kind=kind, group_by_prefix=on)
                async with started(line, '"started"') as ours:
                    seconds, ended = await trio.to_thread.run_sync(run_all, ours.port, number)
                times[on].append(seconds)
                means[on].append(sum(ended) / number)
    figure("all events, off", times[False], " s")
    figure("all events, on", times[True], " s")
    ratios = [off / on for off, on in zip(times[False], times[True], strict=True)]
    waits = [off / on for off, on in zip(means[False], means[True], strict=True)]
    figure("mean time to an outcome, off / on", waits)
    assert figure("time, off / on", ratios) > 1.3
