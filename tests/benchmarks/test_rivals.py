"""Beside other gateways, in one run and on one core each: ``ops/bench.sh -k test_rivals``.

Whatever is measured has one core; wrk, and the server behind all of them, have the other. A round
measures one after the other, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.rivals.contestants import (
    EVENT,
    Missing,
    bare_relay,
    collector,
    daemon,
    haproxy,
    instant_backend,
    kobold,
    litellm,
    paced_backend,
    portkey,
    running,
)
from tests.benchmarks.rivals.load import NothingAnswered, read_streams, wrk
from tests.benchmarks.rivals.processor import LOADED_FROM, SERVED_ON
from tests.benchmarks.rivals.tables import Table
from tests.benchmarks.support import figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.rivals.contestants import Contestant, Running

    Maker = Callable[[int, Path], Contestant]

pytestmark = pytest.mark.benchmark

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
CONNECTIONS = 16
BATCH = 1000
WARM_UP_TRIES = 10
OTHER_CHECKOUT = os.environ.get("BENCH_OTHER")
"""A folder: its daemon is measured beside this one, to see what a change brings."""
OURS, TRACED = "ai-ticket-daemon", "ai-ticket-daemon, traces"
TO_KOBOLD = "ai-ticket-daemon, koboldcpp"
LATER = {"prefer": "respond-async"}
NOBODY = 1
"""A port where nobody listens: events are accepted, and wait."""


@pytest.fixture(autouse=True)
def on_the_other_core() -> None:
    """The readers of streams, and what the tests start, keep off the core that is measured."""
    os.sched_setaffinity(0, {LOADED_FROM})


def ours() -> list[Maker]:
    """Return this daemon, and the one it is to be compared with, if there is one."""
    if OTHER_CHECKOUT is None:
        return [daemon(OURS)]
    return [daemon(OURS), daemon("other checkout", checkout=Path(OTHER_CHECKOUT))]


def start_all(
    stack: ExitStack, makers: list[Maker], backend_port: int, folder: Path
) -> list[Running]:
    """Start those that are installed, and say loudly which are not."""
    found = []
    for maker in makers:
        try:
            found.append(stack.enter_context(running(maker(backend_port, folder))))
        except Missing as missing:
            print(f"\nNOT MEASURED: {missing}")
    return found


def test_waiting_events_are_answered_faster_than_by_other_gateways(tmp_path: Path) -> None:
    """An instant server behind each; ours with its durable store and its metrics."""
    columns = {"requests/s": 0, "CPU ms": 3, "p50 ms, 1 client": 2}
    table = Table(f"{CONNECTIONS} clients, one core", columns)
    with ExitStack() as stack:
        backend = stack.enter_context(running(instant_backend(tmp_path), LOADED_FROM))
        spans = stack.enter_context(running(collector(tmp_path), LOADED_FROM)).contestant.port
        simulated = stack.enter_context(running(kobold(), LOADED_FROM)).contestant.port
        traces = f'telemetry.otlp_endpoint = "http://127.0.0.1:{spans}"'
        makers = [haproxy, bare_relay, *ours(), daemon(TRACED, traces), portkey, litellm]
        rivals = start_all(stack, makers, backend.contestant.port, tmp_path)
        rivals += start_all(stack, [daemon(TO_KOBOLD, kind="koboldcpp")], simulated, tmp_path)
        warm_up(rivals, tmp_path)
        for _ in range(ROUNDS):
            for rival in [*rivals, backend]:
                try:
                    many = wrk(rival, tmp_path, connections=CONNECTIONS, seconds=SECONDS)
                    one = wrk(rival, tmp_path, connections=1, seconds=SECONDS)
                except NothingAnswered as nothing:
                    print(f"\nNOT MEASURED: {nothing}")
                    continue
                table.note(rival.contestant.name, many.per_second, many.cpu_ms, one.p50_ms)
    print(f"\n\n{table}\n")
    aims = {"Portkey": 1.5, "LiteLLM proxy": 30, "bare relay on trio": 0.25}
    compare(table, "requests/s", OURS, aims)
    compare(table, "requests/s", TRACED, {"Portkey": 1.2})


def warm_up(rivals: list[Running], folder: Path) -> None:
    """Let them load what they load with their first requests, one by one."""
    for rival in rivals:
        for _ in range(WARM_UP_TRIES):
            with suppress(NothingAnswered):
                wrk(rival, folder, connections=1, seconds=2)
                break


async def test_deltas_are_relayed_for_little(tmp_path: Path) -> None:
    """Streams of 50 deltas a second each."""
    table = Table("streams of 50 deltas/s", {"deltas/s": 0, "CPU us/delta": 0, "core left": 2})
    with ExitStack() as stack:
        backend = stack.enter_context(running(paced_backend(), LOADED_FROM))
        makers = [haproxy, bare_relay, *ours(), portkey, litellm]
        rivals = start_all(stack, makers, backend.contestant.port, tmp_path)
        for _ in range(ROUNDS):
            for rival in tuple(rivals):
                try:
                    for streams in (32, 64):
                        found = await read_streams(rival, streams=streams, seconds=SECONDS)
                        row = f"{rival.contestant.name}, {streams}"
                        table.note(row, found.deltas_per_second, found.cpu_us, 1 - found.core)
                except* Missing as missing:
                    print(f"\nNOT MEASURED: {missing.exceptions[0]}")
                    rivals.remove(rival)
    print(f"\n\n{table}\n")


def test_events_are_taken_by_the_ten_thousand(tmp_path: Path) -> None:
    """Nobody waits for them: one at a time, and in batches of a thousand; each one is durable."""
    table = Table("accepted, durable", {"events/s": 0, "CPU us/event": 1})
    batch = (json.dumps(EVENT).encode() + b"\n") * BATCH
    with ExitStack() as stack:
        daemons = start_all(stack, ours(), NOBODY, tmp_path)
        for _ in range(ROUNDS):
            for one in daemons:
                name, send = one.contestant.name, partial(wrk, one, tmp_path, seconds=SECONDS)
                rate = send(connections=CONNECTIONS, headers=LATER)
                table.note(f"{name}, one by one", rate.per_second, 1000 * rate.cpu_ms)
                for clients in (1, 4):
                    rate = send(
                        connections=clients,
                        body=batch,
                        path="/events",
                        headers={**LATER, "content-type": "application/x-ndjson"},
                    )
                    row = f"{name}, batches of {BATCH}, clients: {clients}"
                    table.note(row, BATCH * rate.per_second, 1000 * rate.cpu_ms / BATCH)
    print(f"\n\n{table}\n")


def test_two_instances_share_one_store(tmp_path: Path) -> None:
    """Each on a core of its own; the clients and the server take what is left of the second one."""
    table = Table("instances at one store", {"waiting/s": 0, "accepted/s, one by one": 0})
    for _ in range(ROUNDS):
        for number in (1, 2):
            figures = [
                events_per_second(tmp_path, number, waiting=waiting) for waiting in (True, False)
            ]
            table.note(str(number), *figures)
    print(f"\n\n{table}\n")


def events_per_second(tmp_path: Path, instances: int, *, waiting: bool) -> float:
    """Return how many events that many instances answer, or accept if nobody waits for them."""
    with ExitStack() as stack, ThreadPoolExecutor() as clients:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=tmp_path)))
        backend = NOBODY
        if waiting:
            instant = running(instant_backend(folder), LOADED_FROM)
            backend = stack.enter_context(instant).contestant.port
        daemons = []
        for number in range(instances):
            one = daemon(f"instance {number}", store=folder / "events.db")(backend, folder)
            core = LOADED_FROM if number else SERVED_ON
            daemons.append(stack.enter_context(running(one, core)))
        asked = {} if waiting else LATER
        send = partial(wrk, folder=folder, connections=CONNECTIONS, seconds=SECONDS, headers=asked)
        return sum(rate.per_second for rate in clients.map(send, daemons))


def compare(table: Table, column: str, ours: str, aims: dict[str, float]) -> None:
    """Print how our figure stands to others', beside what is aimed at."""
    for rival, aim in aims.items():
        ratios = table.ratios(ours, rival, column)
        if ratios:
            figure(f"{column}, {ours} / {rival} (aim {aim})", ratios)
