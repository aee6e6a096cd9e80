"""Losing a server, using a slot, living with a flapping primary. Run by ``ops/bench.sh``."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.benchmarks.failover_support import (
    Tally,
    backend,
    call,
    chat_client,
    daemon,
    event_client,
    haproxy,
    ports,
)
from tests.benchmarks.support import figure, started

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.benchmarks.support import Started

    Client = Callable[[int, Tally], Coroutine[None, None, None]]

pytestmark = pytest.mark.benchmark

GENERATION_SECONDS = 0.2
ROUNDS = 3


async def lose_the_primary(folder: Path, client: Client, through: str) -> tuple[Tally, float]:
    """Kill the primary under fifty clients; return what they got and when it was killed."""
    tally = Tally()
    async with AsyncExitStack() as stack:
        servers: dict[str, Started] = {
            name: await stack.enter_async_context(
                started(backend(generation_seconds=GENERATION_SECONDS, name=name), "ready")
            )
            for name in ("primary", "standby")
        }
        serving = {name: ports(server.line)[0] for name, server in servers.items()}
        if through.startswith("haproxy"):
            command, port = haproxy(folder, *serving.values(), queues=through.endswith("queue"))
            nursery = await stack.enter_async_context(trio.open_nursery())
            process = await nursery.start(partial(trio.run_process, command, check=False))
            stack.callback(process.terminate)
            await accepts(port)
        else:
            command = daemon(folder, serving.items())
            port = (await stack.enter_async_context(started(command, '"started"'))).port
        async with trio.open_nursery() as clients:
            for _ in range(50):
                clients.start_soon(client, port, tally)
            # Not at a round moment, so that the kill meets a generation anywhere in its course.
            await trio.sleep(2.03)
            killed_at = trio.current_time()
            os.kill(servers["primary"].pid, signal.SIGKILL)
            await trio.sleep(6)
            clients.cancel_scope.cancel()
    return tally, killed_at


async def accepts(port: int) -> None:
    with trio.fail_after(10):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.05)
            else:
                return


async def test_losing_the_primary_loses_nothing_and_takes_a_generation(tmp_path: Path) -> None:
    assert shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "apt-get install haproxy"
    clients: dict[str, Client] = {
        "daemon": event_client,
        "haproxy": partial(chat_client, retry_seconds=0.5),
        "haproxy with a queue": chat_client,
    }
    gaps: dict[str, list[float]] = {through: [] for through in clients}
    lost: dict[str, list[str]] = {through: [] for through in clients}
    doubled = 0
    for _ in range(ROUNDS):
        for through, client in clients.items():
            tally, killed_at = await lose_the_primary(tmp_path, client, through)
            gaps[through].append(tally.first_by("standby", killed_at) - killed_at)
            lost[through] += tally.lost
            doubled += tally.doubled
    for through in clients:
        figure(f"{through}: kill to the first completion by the standby", gaps[through], " s")
        print(f"{through}: lost {len(lost[through])} in {ROUNDS} kills {set(lost[through])}")
    assert lost["daemon"] == []
    assert doubled == 0
    assert max(gaps["daemon"]) <= GENERATION_SECONDS + 0.3
    assert median(gaps["daemon"]) < median(gaps["haproxy"])


@pytest.mark.parametrize("clients", [40, 200])
async def test_one_slot_is_used_as_well_as_by_direct_clients(clients: int, tmp_path: Path) -> None:
    """Forty direct clients that retry half a second after a 503, and ours, in turns."""
    seconds = 15.0
    ours, direct, refusals, held = [], [], [], []
    async with started(backend(generation_seconds=0.1, name="only"), "ready") as server:
        port, control = ports(server.line)
        for _ in range(ROUNDS):
            tally = Tally()
            run = partial(chat_client, retry_seconds=0.5)
            direct.append(await rate(run, port, tally, clients=40, seconds=seconds))
            refusals.append(tally.refused / max(1, len(tally.completions)))
            await quiet(control)
            async with started(daemon(tmp_path, [("only", port)]), '"started"') as process:
                before = await state(control)
                began = trio.current_time()
                tally = Tally()
                ours.append(
                    await rate(event_client, process.port, tally, clients=clients, seconds=seconds)
                )
                after = await state(control)
                held.append(
                    (after["held_seconds"] - before["held_seconds"]) / (trio.current_time() - began)
                )
                assert tally.lost == []
                assert tally.out_of_order == tally.doubled == 0
                assert after["busy_answers_total"] == before["busy_answers_total"]
            await quiet(control)
    figure("40 direct clients: generations per second", direct)
    figure("40 direct clients: refusals per answer", refusals)
    figure(f"daemon, {clients} clients: generations per second", ours)
    figure(f"daemon, {clients} clients: share of time the slot was in use", held)
    ratios = [own / other for own, other in zip(ours, direct, strict=True)]
    # One completion more or less is a hundredth of what is counted here.
    assert figure("daemon / direct", ratios) >= 0.98


async def rate(
    client: Client,
    port: int,
    tally: Tally,
    *,
    clients: int,
    seconds: float,
) -> float:
    """Return the completions per second, from the first one on."""
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client, port, tally)
        await trio.sleep(1 + seconds)
        nursery.cancel_scope.cancel()
    times = [at for at, _, _ in tally.completions]
    return (len(times) - 1) / (times[-1] - times[0])


async def state(control: int) -> dict[str, Any]:
    _, found = await call(control, "/state")
    return found


async def quiet(control: int) -> None:
    """Wait until the server has worked off what clients that left have queued."""
    with trio.fail_after(60):
        while True:
            found = await state(control)
            if not found["running"] and not found["waiting"]:
                return
            await trio.sleep(0.1)


async def test_a_flapping_primary_causes_few_switches_and_no_loss(tmp_path: Path) -> None:
    """Up one second, down one second, for a minute, under eight clients."""
    tally = Tally()
    async with (
        started(backend(generation_seconds=0.1, name="primary"), "ready") as primary,
        started(backend(generation_seconds=0.1, name="standby"), "ready") as standby,
        started(
            daemon(
                tmp_path,
                [(n, ports(s.line)[0]) for n, s in (("primary", primary), ("standby", standby))],
            ),
            '"started"',
        ) as process,
        trio.open_nursery() as nursery,
    ):
        _, control = ports(primary.line)
        for _ in range(8):
            nursery.start_soon(event_client, process.port, tally)
        await trio.sleep(1)
        for _ in range(30):
            await call(control, "/fault", {"kind": "die"})
            await trio.sleep(1)
            await call(control, "/fault", {"kind": "start_again"})
            await trio.sleep(1)
        switches = sum(earlier[1] != later[1] for earlier, later in pairwise(tally.completions))
        nursery.cancel_scope.cancel()
    print(
        f"\nflapping for 60 s: {switches} switches, {len(tally.lost)} lost of "
        f"{len(tally.completions) + len(tally.lost)}"
    )
    assert tally.lost == []
    assert tally.doubled == 0
    assert 1 <= switches <= 4
