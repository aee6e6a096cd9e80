"""The prober: an actor that looks at each backend regularly and tells the pool what it saw.

Owns one task per server and nothing else; the pool owns the state. Probes take no generation slot.
It also does what the pool, which has no tasks, needs a clock for: ending pauses, having models
loaded, closing clients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.failure import BackendError, RetryRule
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.liveness import Liveness
from ai_ticket_daemon.pool.health import UNSETTLED
from ai_ticket_daemon.pool.health_events import ProbeFailed, ProbeSilent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.liveness import Pulse
    from ai_ticket_daemon.pool.pool import Backend, BackendPool


async def run(
    *,
    pool: BackendPool,
    settings: Callable[[], BackendsConfig],
    liveness: Liveness | None = None,
    exhaustion: Exhaustion | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Probe all backends of the pool; runs until cancelled.

    Started means: every backend was looked at once, so that the pool knows what is usable.
    ``liveness`` is promised the next look at each of them, ``exhaustion`` is told what the host
    lacked for one.
    """
    pulse = (liveness or Liveness()).pulse("prober")
    prober = _Prober(pool, settings, pulse, exhaustion or Exhaustion())
    async with trio.open_nursery() as nursery:
        pulse.beat("first round", settings().probe_timeout_seconds)
        nursery.start_soon(_end_pauses, pool)
        watched: dict[Backend, trio.CancelScope] = {}
        async with trio.open_nursery() as first_round:
            for backend in pool:
                watched[backend] = trio.CancelScope()
                first_round.start_soon(prober.look, backend)
        pulse.end("first round")
        for backend, scope in watched.items():
            nursery.start_soon(partial(prober.watch, looked=True), backend, scope)
        task_status.started()
        while True:
            seen = pool.servers_changed.version
            current = set(pool)
            for backend in watched.keys() - current:
                # Not one more probe goes to a server that a reload has taken out.
                watched.pop(backend).cancel()
            for backend in current - watched.keys():
                watched[backend] = scope = trio.CancelScope()
                nursery.start_soon(partial(prober.watch, looked=False), backend, scope)
            for client in pool.take_idle_clients():
                await client.aclose()
            await pool.servers_changed.wait(seen)


class _Prober:
    """Looks at servers. What fails in that, is a failed look at that server, and nobody else's."""

    def __init__(
        self,
        pool: BackendPool,
        settings: Callable[[], BackendsConfig],
        pulse: Pulse,
        exhaustion: Exhaustion,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._pulse = pulse
        self._exhaustion = exhaustion

    async def watch(self, backend: Backend, scope: trio.CancelScope, *, looked: bool) -> None:
        """Look at a server again and again, until ``scope`` is cancelled."""
        # A server at another address is another backend, perhaps of the same name.
        part = f"{backend.name} ({id(backend):x})"
        try:
            with scope:
                async with trio.open_nursery() as beside:
                    while True:
                        if looked:
                            await self._until_due(backend, partial(self._pulse.beat, part))
                        backend.look_wanted = False
                        self._pulse.beat(part, self._settings().probe_timeout_seconds)
                        await self.look(backend)
                        looked = True
                        if self._pool.begin_wake(backend):
                            beside.start_soon(self._wake, backend)
        finally:
            self._pulse.end(part)

    async def _until_due(self, backend: Backend, beat: Callable[[float], None]) -> None:
        """Wait for the next look; traffic that puts the server in doubt makes it come sooner."""
        since = trio.current_time()
        while not backend.look_wanted:
            seen = backend.doubted.version
            rules = self._settings()
            doubtful = backend.health.in_transition or backend.pause.reads_on
            pause = rules.probe_fast_interval_seconds if doubtful else rules.probe_interval_seconds
            beat(pause)
            with trio.move_on_at(since + pause):
                await backend.doubted.wait(seen)
                continue
            return

    async def look(self, backend: Backend) -> None:
        """Look at a server once."""
        client = backend.client
        try:
            await self._probe(backend, client)
        except Exception as error:  # noqa: BLE001 - told, with its traceback
            self._crashed(backend, error)
        self._pool.looked(backend, client)

    async def _probe(self, backend: Backend, client: BackendClient) -> None:
        pool, timeout = self._pool, self._settings().probe_timeout_seconds
        identify = backend.health.state in UNSETTLED
        silence = f"no answer within {timeout:g} s"
        began = trio.current_time()
        try:
            with trio.fail_after(timeout):
                result = await client.probe(identify=identify)
        except trio.TooSlowError:
            # If this process itself stood still, the answer may be lying there: no proof of it.
            stood_still = trio.current_time() - began > 1.5 * timeout
            pool.saw(backend, ProbeFailed(silence) if stood_still else ProbeSilent(silence))
        except BackendError as error:
            # If this host could not ask, the server is as it was.
            if error.failure.retry is not RetryRule.HOST:
                pool.probe_failed(backend, error)
        else:
            pool.probed(backend, result)

    async def _wake(self, backend: Backend) -> None:
        """Have a server load its model, while the looks at it go on."""
        limit = backend.config.load_timeout_seconds
        problem: str | None = None
        try:
            with trio.fail_after(limit):
                if not await backend.client.wake():
                    problem = "it does not load a model when asked to"
            self._pool.woken(backend, problem)
        except trio.TooSlowError:
            self._pool.woken(backend, f"not loaded within {limit:g} s")
        except BackendError as error:
            self._pool.woken(backend, error.message)
        except Exception as error:  # noqa: BLE001 - told, with its traceback
            self._crashed(backend, error)
            self._pool.woken(backend, "that failed by a fault of the daemon, or of its host")
        finally:
            self._pool.end_wake(backend)

    def _crashed(self, backend: Backend, error: Exception) -> None:
        """Take in a fault of this program; if it is the host's, the server is as it was."""
        if self._exhaustion.meets(error, "prober") is None:
            self._pool.probe_crashed(backend, error)


async def _end_pauses(pool: BackendPool) -> None:
    while True:
        seen = pool.changed.version
        ends_at = pool.pauses.next_end_at
        if ends_at is None:
            await pool.changed.wait(seen)
        else:
            with trio.move_on_at(ends_at):
                await pool.changed.wait(seen)
            pool.pauses.end_due()
