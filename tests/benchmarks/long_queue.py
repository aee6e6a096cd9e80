"""Claims and completes events with a thousand queued, then with a million; prints what it costs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

import trio

from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.ids import new_event_id
from ai_ticket_daemon.events.outcome import Attempt, Succeeded, Usage
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.factory import make_store
from ai_ticket_daemon.store.sqlite.store import SqliteStore
from tests.benchmarks.strict_observer import StrictObserver

FEW, MANY, BLOCK, BLOCKS = 1_000, 1_000_000, 500, 9
DONE = Succeeded("text", "primary", "stop", Usage(1, 1), 1.0, (Attempt("primary", 0, 1),))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def fill(store: SqliteStore, number: int) -> None:
    text = (Message(Role.USER, "Ticket: the printer prints nothing but stripes."),)
    now = time.time()
    for start in range(0, number, 1000):
        size = min(1000, number - start)
        events = [Event(new_event_id(now), text, Sampling(), now, now + 1e6) for _ in range(size)]
        await store.submit(events, owned=False)


async def measure(store: SqliteStore) -> None:
    costs, times = [], []
    queued = (await store.counts()).states[EventState.QUEUED]
    for _ in range(BLOCKS):
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(BLOCK):
            lease = await store.claim(time.time(), backend="primary", until=time.time() + 30)
            assert lease is not None
            assert await store.complete(lease, EventState.SUCCEEDED, DONE, time.time())
        costs.append(1e6 * (time.process_time() - cpu) / BLOCK)
        times.append(1e6 * (time.perf_counter() - began) / BLOCK)
        await fill(store, BLOCK)
    figures = {"queued": queued, "us": median(costs), "wall_us": median(times)}
    print(json.dumps({**figures, "resident_bytes": resident_bytes()}), flush=True)


async def main(folder: str) -> None:
    config = StoreConfig(url=f"sqlite:///{Path(folder) / 'events.db'}")
    store = make_store(config, max_queued=lambda: 10 * MANY, observer=StrictObserver())
    assert isinstance(store, SqliteStore)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await fill(store, FEW)
        await measure(store)
        await fill(store, MANY - FEW)
        await measure(store)
        nursery.cancel_scope.cancel()


trio.run(main, sys.argv[1])
