"""Empty jobs through the pipeline and its store on disk: how long they take in, and to drain."""

from __future__ import annotations

import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path

import trio

from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.ids import new_event_id
from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
from ai_ticket_daemon.pool import prober
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.store.factory import make_store
from ai_ticket_daemon.testing.fakes import FakeClient
from tests.benchmarks.strict_observer import StrictObserver


def job() -> Event:
    now = time.time()
    return Event(new_event_id(now), (Message(Role.USER, "x"),), Sampling(), now, now + 3600)


async def main(folder: str, jobs: int, clients: int, batch: int) -> None:
    config = StoreConfig(url=f"sqlite:///{Path(folder) / 'events.db'}")
    store = make_store(config, max_queued=lambda: 1_000_000, observer=StrictObserver())
    server = ServerConfig("primary", "http://127.0.0.1:1", max_in_flight=clients)
    rules = BackendsConfig(servers=(server,))
    client = FakeClient(server, seconds=0)
    pool = BackendPool(lambda: rules, open_client=lambda _: client, observer=PoolObserver())
    settings = PipelineConfig(max_concurrency=clients)
    pipeline = AsyncInferencePipeline(store=store, pool=pool, settings=lambda: settings)
    pipeline.pause()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await nursery.start(pipeline.run)
        await nursery.start(partial(prober.run, pool=pool, settings=lambda: rules))
        numbers = itertools.count()

        async def submit() -> None:
            while next(numbers) * batch < jobs:
                await pipeline.enqueue([job() for _ in range(batch)])

        began = time.perf_counter()
        async with trio.open_nursery() as submitters:
            for _ in range(clients if batch == 1 else 1):
                submitters.start_soon(submit)
        submitted = time.perf_counter() - began
        counts = await store.counts()
        assert counts.accepted == jobs
        began = time.perf_counter()
        pipeline.unpause()
        while (await store.counts()).ended < jobs:  # noqa: ASYNC110 - as the others are asked
            await trio.sleep(0.01)
        print(json.dumps({"submit": submitted, "drain": time.perf_counter() - began}))
        nursery.cancel_scope.cancel()


trio.run(partial(main, sys.argv[1], *map(int, sys.argv[2:5])))
