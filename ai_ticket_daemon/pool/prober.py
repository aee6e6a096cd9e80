"""The prober: an actor that looks at each backend regularly and tells the pool what it saw.

Owns one task per server and nothing else; the pool owns the state. Probes take no generation slot.
It also does what the pool, which has no tasks, needs a clock for: ending pauses, closing clients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.failure import BackendError, RetryRule
from ai_ticket_daemon.liveness import Liveness
from ai_ticket_daemon.pool.health import UNSETTLED
from ai_ticket_daemon.pool.health_events import ProbeFailed, ProbeSilent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.liveness import Pulse
    from ai_ticket_daemon.pool.pool import Backend, BackendPool


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
        nursery.start_soon(_end_pauses, pool)
        watched: dict[Backend, trio.CancelScope] = {}
        async with trio.open_nursery() as first_round:
            for backend in pool:
                watched[backend] = trio.CancelScope()
                first_round.start_soon(_probe, pool, backend, settings())
        pulse.end("first round")
        for backend, scope in watched.items():
            nursery.start_soon(partial(_watch, looked=True), pool, backend, settings, pulse, scope)
        task_status.started()
        while True:
            seen = pool.servers_changed.version
            current = set(pool)
            for backend in watched.keys() - current:
                # Not one more probe goes to a server that a reload has taken out.
                watched.pop(backend).cancel()
            for backend in current - watched.keys():
                watched[backend] = scope = trio.CancelScope()
                nursery.start_soon(
                    partial(_watch, looked=False), pool, backend, settings, pulse, scope
                )
            for client in pool.take_idle_clients():
                await client.aclose()
            await pool.servers_changed.wait(seen)


async def _watch(
    pool: BackendPool,
    backend: Backend,
    settings: Callable[[], BackendsConfig],
    pulse: Pulse,
    scope: trio.CancelScope,
    *,
    looked: bool,
) -> None:
    # A server at another address is another backend, perhaps of the same name.
    part = f"{backend.name} ({id(backend):x})"
    try:
        with scope:
            while True:
                if looked:
                    await _until_due(backend, settings, partial(pulse.beat, part))
                pulse.beat(part, settings().probe_timeout_seconds)
                await _probe(pool, backend, settings())
                looked = True
                if pool.should_wake(backend):
                    pulse.beat(part, backend.config.load_timeout_seconds)
                    await _wake(pool, backend)
    finally:
        pulse.end(part)


async def _until_due(
    backend: Backend, settings: Callable[[], BackendsConfig], beat: Callable[[float], None]
) -> None:
    """Wait for the next probe; it comes sooner if traffic puts the server in doubt meanwhile."""
    since = trio.current_time()
    while True:
        seen = backend.doubted.version
        rules = settings()
        doubtful = backend.health.in_transition or backend.reads_on
        pause = rules.probe_fast_interval_seconds if doubtful else rules.probe_interval_seconds
        if backend.wake_wanted:
            return
        beat(pause)
        with trio.move_on_at(since + pause):
            await backend.doubted.wait(seen)
            continue
        return


async def _wake(pool: BackendPool, backend: Backend) -> None:
    """Have a server load its model, and look at it again right after."""
    limit = backend.config.load_timeout_seconds
    try:
        with trio.fail_after(limit):
            known = await backend.client.wake()
    except trio.TooSlowError:
        problem: str | None = f"not loaded within {limit:g} s"
    except BackendError as error:
        problem = error.message
    else:
        problem = None if known else "it does not load a model when asked to"
    pool.woken(backend, problem)


async def _probe(pool: BackendPool, backend: Backend, rules: BackendsConfig) -> None:
    timeout = rules.probe_timeout_seconds
    identify = backend.health.state in UNSETTLED
    silence = f"no answer within {timeout:g} s"
    began = trio.current_time()
    try:
        with trio.fail_after(timeout):
            result = await backend.client.probe(identify=identify)
    except trio.TooSlowError:
        # If this process itself stood still, the answer may be lying there: no proof of silence.
        stood_still = trio.current_time() - began > 1.5 * timeout
        pool.saw(backend, ProbeFailed(silence) if stood_still else ProbeSilent(silence))
    except BackendError as error:
        # If this host could not ask, the server is as it was.
        if error.failure.retry is not RetryRule.HOST:
            pool.probe_failed(backend, error)
    else:
        pool.probed(backend, result)


async def _end_pauses(pool: BackendPool) -> None:
    while True:
        seen = pool.changed.version
        ends_at = pool.next_pause_ends_at
        if ends_at is None:
            await pool.changed.wait(seen)
        else:
            with trio.move_on_at(ends_at):
                await pool.changed.wait(seen)
            pool.end_pauses()
