"""Start here: builds every part from the configuration, starts it, and draws the shutdown order.

    telemetry ─▶ store ─▶ prober ─▶ pipeline ─▶ HTTP front end
    (outermost: stops last)                     (innermost: stops first)

A stop runs through the nurseries from the inside out: stop accepting; let running generations end
within ``drain_seconds``; send waiting clients away; put what still runs back in the queue; close.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon import __version__, signals
from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.log import LogLevel
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host import collector, trimmer
from ai_ticket_daemon.host.memory_budget import MemoryBudget
from ai_ticket_daemon.liveness import Liveness
from ai_ticket_daemon.parts.control_plane import ControlPlane
from ai_ticket_daemon.parts.front_end import FrontEnd
from ai_ticket_daemon.parts.servers import Servers
from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
from ai_ticket_daemon.reloader import LiveConfig, Reloader
from ai_ticket_daemon.status.daemon_status import DaemonStatus, Sources
from ai_ticket_daemon.status.line import line_of
from ai_ticket_daemon.store.factory import make_store
from ai_ticket_daemon.supervisor import Supervisor
from ai_ticket_daemon.systemd import watchdog
from ai_ticket_daemon.systemd.notify import Systemd
from ai_ticket_daemon.systemd.reload_result import result_path
from ai_ticket_daemon.task_tree import task_tree
from ai_ticket_daemon.telemetry import sampler
from ai_ticket_daemon.telemetry.instrumentation import Instrumentation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.control.orders import StandingOrders
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.telemetry.logs.logs import Logs

RELEASE_OWNER_SECONDS = 2.0
"""How long the store may take to note that no client waits here any more."""
LAST_ANSWERS_SECONDS = 2.0
"""How long clients that are sent away have to read their answer."""


class Daemon:
    """The whole daemon, for one process or one test.

    Args:
        config: what to run with.
        load: reads the configuration anew at a reload.
        logs: where log lines go.
        make_client: makes the client of a server; see :func:`open_client`.
        systemd: what systemd gave this process and wants to be told.
    """

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config],
        logs: Logs,
        make_client: Callable[..., BackendClient] = open_client,
        systemd: Systemd | None = None,
    ) -> None:
        self._live = live = LiveConfig(config)
        self._clock = clock = Clock()
        self._logs = logs
        self._log = logs.logger(actor="app")
        self._systemd = systemd = systemd or Systemd()
        self._liveness = Liveness()
        self._stop = trio.Event()
        self._draining = False
        self._root = trio.CancelScope()
        self._look = look = Instrumentation(
            config, log_config=lambda: live.current.log, logs=logs, clock=clock
        )
        metrics, exhaustion = look.metrics, look.exhaustion
        self._memory = memory = MemoryBudget(lambda: live.current.http.max_memory_bytes)
        metrics.server_request_memory.set_function(lambda: memory.used_bytes)

        self._store = make_store(
            config.store,
            max_queued=lambda: live.current.store.max_queued,
            observer=look.store(),
            clock=clock,
        )
        self._servers = servers = Servers(
            live=live, store=self._store, look=look, logs=logs, clock=clock, make_client=make_client
        )
        self._pipeline = AsyncInferencePipeline(
            store=self._store,
            pool=servers.pool,
            settings=lambda: live.current.pipeline,
            keeping=lambda: live.current.store,
            liveness=self._liveness,
            clock=clock,
            memory=memory,
            exhaustion=exhaustion,
            observer=look.pipeline(),
        )
        self._control = ControlPlane(
            live=live,
            store=self._store,
            servers=servers,
            pipeline=self._pipeline,
            look=look,
            clock=clock,
            logs=logs,
            stopping=self._stop.is_set,
        )
        self._status = DaemonStatus(
            Sources(
                pool=servers.pool,
                pipeline=self._pipeline,
                store=self._store,
                fault_injection=servers.fault_injection,
                exhaustion=exhaustion,
                clock=clock,
                config=lambda: live.current,
                missing_pin=lambda: self._control.orders.missing,
                addresses=lambda: front_end.addresses,
                warnings=lambda: front_end.standing_warnings(),  # noqa: PLW0108 - made below
                reload_problems=lambda: self._reloader.problems,
                refused_clients=lambda: front_end.refusals.most(),  # noqa: PLW0108
                log_level=lambda: logs.level.value,
                capture_payloads=lambda: look.capture.payloads,
            )
        )
        self._front_end = front_end = FrontEnd(
            live=live,
            pipeline=self._pipeline,
            status=self._status,
            look=look,
            logs=logs,
            memory=memory,
            clock=clock,
            listen_fds=systemd.listen_fds,
        )
        self.metrics_port: int | None = None
        self._reloader = Reloader(
            live,
            load=load,
            apply=self._apply,
            log=self._log,
            metrics=metrics,
            notifier=systemd.notifier,
            result_path=result_path(os.environ) if systemd.notifier.address else None,
            warnings=front_end.warnings,
            in_effect=look.capture.in_effect,
            exhaustion=exhaustion,
        )
        self._operations = self._control.operations(status=self._status, reloader=self._reloader)

    async def run(
        self, *, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until told to stop, by :meth:`stop` or a signal; started with the addresses.

        Raises:
            RestartBudgetExceeded: the actors crash faster than restarting them can heal.
            ListenerUnavailable: an address cannot be bound.
            StoreUnavailable: the store cannot be opened.
        """
        config, look = self._live.current, self._look
        # A series has to be there at 0 for its first increase to be seen.
        supervisor = Supervisor(
            self._actor_crashed,
            takes_on=look.metrics.actor_restarts.labels,
            exhaustion=look.exhaustion,
        )
        self._front_end.warn(config)
        actions = self._actions()
        try:
            with self._root, trio.open_signal_receiver(*actions) as received:
                async with trio.open_nursery() as telemetry:
                    start = partial(_start, supervisor, telemetry)
                    await start("signals", signals.run, received=received, actions=actions)
                    await self._start_telemetry(start)
                    async with trio.open_nursery() as storing:
                        await _start(supervisor, storing, "store", self._store.run)
                        await self._start_sampler(partial(_start, supervisor, telemetry))
                        async with trio.open_nursery() as backends:
                            start = partial(_start, supervisor, backends)
                            await self._servers.start(start, self._liveness)
                            async with trio.open_nursery() as pipeline:
                                start = partial(_start, supervisor, pipeline)
                                await self._control.orders.restore()
                                await start("pipeline", self._pipeline.run)
                                await start("orders", self._control.orders.run)
                                await self._control.start(start, self._operations, self._front_end)
                                await self._front_end.start_renewal(start)
                                await self._serve(supervisor, task_status)
                                pipeline.cancel_scope.cancel()
                            await self._release_owner()
                            backends.cancel_scope.cancel()
                        storing.cancel_scope.cancel()
                    telemetry.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    @property
    def pool(self) -> BackendPool:
        """The backends."""
        return self._servers.pool

    @property
    def orders(self) -> StandingOrders:
        """What an operator ordered."""
        return self._control.orders

    def stop(self) -> None:
        """Drain and stop; a second call stops now."""
        if self._stop.is_set():
            self._log.warning("stopping_now")
            self._root.cancel()
        else:
            self._systemd.notifier.stopping()
            self._log.info("stopping")
            self._servers.fault_injection.rejoin("the daemon stops")
            self._servers.history.note("the daemon was told to stop")
            self._stop.set()

    async def _start_telemetry(self, start: Callable[..., Awaitable[Any]]) -> None:
        """Start what looks on; it is there before anything else happens, and after."""
        await start(
            "watchdog",
            watchdog.run,
            systemd=self._systemd,
            liveness=self._liveness,
            status=lambda: line_of(self._status.snapshot()),
            draining=lambda: self._draining,
            starved=self._starved,
        )
        self.metrics_port = await self._look.start(start)
        exhaustion = self._look.exhaustion
        await start("trimmer", trimmer.run, memory=self._memory, exhaustion=exhaustion)
        await start("collector", collector.run, exhaustion=exhaustion)

    async def _start_sampler(self, start: Callable[..., Awaitable[Any]]) -> None:
        await start(
            "sampler",
            sampler.run,
            metrics=self._look.metrics,
            status=self._status,
            logs=self._logs,
            failures=self._look.failures("sampler"),
        )

    async def _serve(
        self, supervisor: Supervisor, task_status: trio.TaskStatus[tuple[str, ...]]
    ) -> None:
        """Run the HTTP front end until told to stop, then drain."""
        async with trio.open_nursery() as front:
            await self._front_end.start(partial(_start, supervisor, front))
            addresses = self._front_end.addresses
            self._status.started = True
            self._log.info("started", version=__version__, addresses=addresses)
            self._reloader.leave_result()
            self._systemd.notifier.ready()
            task_status.started(addresses)
            await self._stop.wait()
            self._front_end.stop_accepting.set()
            await self._front_end.all_in.wait()
            self._draining = True
            with trio.move_on_after(self._live.current.pipeline.drain_seconds):
                await self._pipeline.drain()
            self._draining = False
            self._pipeline.send_waiters_away()
            front.cancel_scope.deadline = trio.current_time() + LAST_ANSWERS_SECONDS

    async def _release_owner(self) -> None:
        """Leave what clients waited for to any daemon: they have been told that this one stops."""
        with suppress(StoreUnavailable), trio.move_on_after(RELEASE_OWNER_SECONDS):
            await self._store.release_owner()

    async def _close(self) -> None:
        await self._servers.close()
        await self._look.close()
        self._log.info("stopped")

    def _actions(self) -> dict[signal.Signals, Callable[[], None]]:
        return {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._reloader.reload,
            signal.SIGUSR1: self._show_tasks,
            signal.SIGUSR2: self._toggle_debug,
        }

    def _apply(self, config: Config) -> None:
        self._servers.apply(config)  # or raises, and has changed nothing
        self._logs.level = config.log.level
        self._look.capture.override = None
        # What is lacking for the rest is no reason to go back: a certificate is looked at again.
        for then in (self._front_end.take_certificate, partial(self._front_end.warn, config)):
            try:
                then()
            except Exception as error:
                if self._look.exhaustion.meets(error, "reload") is None:
                    raise

    def _show_tasks(self) -> None:
        root = trio.lowlevel.current_root_task()
        if root is not None:
            self._log.info(
                "task_tree", in_flight=self._pipeline.in_flight, tree="\n" + task_tree(root)
            )

    def _starved(self, hung: Sequence[str]) -> None:
        self._log.critical("watchdog_starved", hung=list(hung))
        self._show_tasks()

    def _toggle_debug(self) -> None:
        configured = self._live.current.log.level
        debugging = self._logs.level is LogLevel.DEBUG
        self._logs.level = configured if debugging else LogLevel.DEBUG
        self._log.warning("log_level_changed", log_level=self._logs.level.value)

    def _actor_crashed(self, name: str, error: Exception) -> None:
        self._look.metrics.actor_restarts.labels(name).inc()
        self._log.error("actor_restarted", crashed=name, exc_info=error)


async def _start(
    supervisor: Supervisor,
    nursery: trio.Nursery,
    name: str,
    actor: Callable[..., Awaitable[None]],
    **dependencies: object,
) -> Any:
    """Start ``actor`` under its name; return what it calls itself started with."""
    return await nursery.start(supervisor.run, name, partial(actor, **dependencies), name=name)
