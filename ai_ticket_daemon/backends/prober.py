"""The prober: an actor that looks at each backend regularly and tells the pool what it saw.

Owns one task per server and nothing else; the pool owns the state. Probes take no generation slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import BackendError
from ai_ticket_daemon.liveness import Liveness

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.pool import Backend, BackendPool
    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.liveness import Pulse


async def run(
    *,
    pool: BackendPool,
    settings: Callable[[], BackendsConfig],
    liveness: Liveness | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Probe all backends of the pool; runs until cancelled.

    Started means: every backend was looked at once, so that the pool knows what is usable.
    ``liveness`` is promised the next look at each of them.
    """
    pulse = (liveness or Liveness()).pulse("prober")
    async with trio.open_nursery() as nursery:
        pulse.beat("first round", settings().probe_timeout_seconds)
        async with trio.open_nursery() as first_round:
            for backend in pool:
                first_round.start_soon(_probe, pool, backend, settings())
        pulse.end("first round")
        task_status.started()
        watched: set[Backend] = set()
        while True:
            seen = pool.servers_changed.version
            current = set(pool)
            for backend in current - watched:
                nursery.start_soon(_watch, pool, backend, settings, pulse)
            watched = current
            await pool.servers_changed.wait(seen)


async def _watch(
    pool: BackendPool, backend: Backend, settings: Callable[[], BackendsConfig], pulse: Pulse
) -> None:
    # A changed server is another backend of the same name, so the name alone would not do.
    part = f"{backend.name} ({id(backend):x})"
    while not backend.removed:
        rules = settings()
        doubtful = backend.health.in_transition
        pause = rules.probe_fast_interval_seconds if doubtful else rules.probe_interval_seconds
        pulse.beat(part, pause + rules.probe_timeout_seconds)
        await trio.sleep(pause)
        await _probe(pool, backend, rules)
    pulse.end(part)


async def _probe(pool: BackendPool, backend: Backend, rules: BackendsConfig) -> None:
    try:
        with trio.fail_after(rules.probe_timeout_seconds):
            result = await backend.client.probe()
    except trio.TooSlowError:
        pool.probe_failed(backend, f"no answer within {rules.probe_timeout_seconds:g} s")
    except BackendError as error:
        pool.probe_failed(backend, error.message)
    else:
        pool.probed(backend, result)
