"""Start here: builds every part from the configuration, starts it, and draws the shutdown order.

    telemetry ─▶ store ─▶ prober ─▶ pipeline ─▶ HTTP front end
    (outermost: stops last)                     (innermost: stops first)

A stop runs through the nurseries from the inside out: stop accepting; let running generations end
within ``drain_seconds``; send waiting clients away; put what still runs back in the queue; close.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from prometheus_client import generate_latest

from ai_ticket_daemon import __version__, signals, timekeeper
from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.backends.kobold.abort import AbortReason
from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjectingClient, FaultInjection
from ai_ticket_daemon.backends.wrappers.host_lacks import HostAwareClient
from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.log import LogLevel
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.read import otel_variables
from ai_ticket_daemon.control import server as control
from ai_ticket_daemon.control.control_app import ControlApp
from ai_ticket_daemon.control.history import PoolHistory
from ai_ticket_daemon.control.operations import operations
from ai_ticket_daemon.control.orders import StandingOrders, this_process
from ai_ticket_daemon.control.view_app import ViewApp
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host import trimmer
from ai_ticket_daemon.host.descriptors import limit, too_few_for, within
from ai_ticket_daemon.host.memory_budget import MemoryBudget
from ai_ticket_daemon.liveness import Liveness
from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
from ai_ticket_daemon.pool import persistence, prober
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.reloader import LiveConfig, Reloader
from ai_ticket_daemon.server.access.refusals import Refusals
from ai_ticket_daemon.server.app import create_app
from ai_ticket_daemon.server.listen import listeners, renewal
from ai_ticket_daemon.server.listen.handed_over import look_at, served
from ai_ticket_daemon.server.listen.tls import ServedCertificate
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
    from pathlib import Path

    from hypercorn.typing import ASGIFramework
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.config.backends import ServerConfig
    from ai_ticket_daemon.config.tree import Config
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
        self._make_client = make_client
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
        self._fault_injection = FaultInjection(
            others_usable=lambda names: any(
                b.health.usable for b in self._pool if b.name not in names
            ),
            on_end=lambda reason: self._log.warning("severance_ended", reason=reason),
        )
        self._history = PoolHistory(
            look.pool, self._store, log=logs.logger(actor="history"), now=clock.now
        )
        self._pool = BackendPool(
            lambda: live.current.backends,
            open_client=self._open_client,
            observer=look.guarded(self._history, "pool"),
        )
        self._pipeline = AsyncInferencePipeline(
            store=self._store,
            pool=self._pool,
            settings=lambda: live.current.pipeline,
            keeping=lambda: live.current.store,
            liveness=self._liveness,
            clock=clock,
            memory=memory,
            exhaustion=exhaustion,
            observer=look.pipeline(),
        )
        socket = control.socket_path(config.control.socket, os.environ)
        self._orders = StandingOrders(
            store=self._store,
            pool=self._pool,
            pipeline=self._pipeline,
            history=self._history,
            me=this_process(None if socket is None else str(socket), __version__),
            stopping=self._stop.is_set,
            log=logs.logger(actor="orders"),
            clock=clock,
        )
        refusals = Refusals()
        self._status = DaemonStatus(
            Sources(
                pool=self._pool,
                pipeline=self._pipeline,
                store=self._store,
                fault_injection=self._fault_injection,
                exhaustion=exhaustion,
                clock=clock,
                config=lambda: live.current,
                missing_pin=lambda: self._orders.missing,
                addresses=lambda: self._addresses,
                warnings=self._current_warnings,
                reload_problems=lambda: self._reloader.problems,
                refused_clients=refusals.most,
                log_level=lambda: logs.level.value,
                capture_payloads=lambda: look.capture.payloads,
            )
        )
        make_app = partial(
            create_app,
            pipeline=self._pipeline,
            health=self._status,
            http=lambda: live.current.http,
            events=lambda: live.current.events,
            observer=look.http(),
            memory=memory,
            exhaustion=exhaustion,
            logger=logs.library_logger("handler_crashed", actor="http"),
            now=clock.now,
        )
        self._app = make_app(
            auth=lambda: live.current.auth,
            rate_limit=lambda: live.current.rate_limit,
            refusals=refusals,
        )
        # Whoever may open the control socket needs no token, and has no limit.
        self._local_app = make_app(auth=AuthConfig, rate_limit=lambda: RateLimitConfig(requests=0))
        self.metrics_port: int | None = None
        self._reloader = Reloader(
            live,
            load=load,
            apply=self._apply,
            log=self._log,
            metrics=metrics,
            notifier=systemd.notifier,
            result_path=result_path(os.environ) if systemd.notifier.address else None,
            warnings=self._warnings,
            in_effect=look.capture.in_effect,
            exhaustion=exhaustion,
        )
        self._addresses: tuple[str, ...] = ()
        self._certificate = ServedCertificate(lambda: live.current.http)
        self._certificate_log = logs.logger(actor="renewal")
        self._operations = operations(
            status=self._status,
            pool=self._pool,
            pipeline=self._pipeline,
            store=self._store,
            config=lambda: live.current,
            reloader=self._reloader,
            orders=self._orders,
            history=self._history,
            fault_injection=self._fault_injection,
            capture=look.capture,
            logs=logs,
            metrics_page=lambda: generate_latest(metrics.registry),
            clock=clock,
            stopping=self._stop.is_set,
        )

    async def run(
        self, *, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until told to stop, by :meth:`stop` or a signal; started with the addresses.

        Raises:
            RestartBudgetExceeded: the actors crash faster than restarting them can heal.
            ListenerUnavailable: an address cannot be bound.
            StoreUnavailable: the store cannot be opened.
        """
        config = self._live.current
        # A series has to be there at 0 for its first increase to be seen.
        supervisor = Supervisor(
            self._actor_crashed,
            takes_on=self._look.metrics.actor_restarts.labels,
            exhaustion=self._look.exhaustion,
        )
        self._warn(config)
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
                            await self._start_backends(partial(_start, supervisor, backends))
                            async with trio.open_nursery() as pipeline:
                                await self._orders.restore()
                                await _start(supervisor, pipeline, "pipeline", self._pipeline.run)
                                await _start(supervisor, pipeline, "orders", self._orders.run)
                                await self._start_control(partial(_start, supervisor, pipeline))
                                await self._start_renewal(partial(_start, supervisor, pipeline))
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
        return self._pool

    @property
    def orders(self) -> StandingOrders:
        """What an operator ordered."""
        return self._orders

    def stop(self) -> None:
        """Drain and stop; a second call stops now."""
        if self._stop.is_set():
            self._log.warning("stopping_now")
            self._root.cancel()
        else:
            self._systemd.notifier.stopping()
            self._log.info("stopping")
            self._fault_injection.rejoin("the daemon stops")
            self._history.note("the daemon was told to stop")
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
        await start("trimmer", trimmer.run, memory=self._memory, exhaustion=self._look.exhaustion)

    async def _start_sampler(self, start: Callable[..., Awaitable[Any]]) -> None:
        await start(
            "sampler",
            sampler.run,
            metrics=self._look.metrics,
            status=self._status,
            logs=self._logs,
            failures=self._look.failures("sampler"),
        )

    async def _start_backends(self, start: Callable[..., Awaitable[Any]]) -> None:
        """Recall what is known of the backends, and only then look at them."""
        await persistence.restore(
            pool=self._pool,
            store=self._store,
            rise=self._live.current.backends.rise,
            log=self._logs.logger(actor="keeper"),
            now=self._clock.now,
        )
        await start(
            "keeper",
            persistence.run,
            pool=self._pool,
            store=self._store,
            log=self._logs.logger(actor="keeper"),
            now=self._clock.now,
        )
        self._history.note(f"the daemon was started: version {__version__}, process {os.getpid()}")
        await start("history", self._history.run)
        await start(
            "timekeeper",
            timekeeper.run,
            clock=self._clock,
            store=self._store,
            log=self._logs.logger(actor="timekeeper"),
            note=self._history.note,
            exhaustion=self._look.exhaustion,
        )
        await start(
            "prober",
            prober.run,
            pool=self._pool,
            settings=lambda: self._live.current.backends,
            liveness=self._liveness,
        )

    async def _start_control(self, start: Callable[..., Awaitable[Any]]) -> None:
        """Let the operator in; also while the daemon drains."""
        log = self._logs.logger(actor="control")
        await start(
            "control",
            control.run,
            apps=self._control_apps(log),
            log=log,
            logger=self._logs.library_logger("control_server", actor="control"),
            exhaustion=self._look.exhaustion,
        )

    def _control_apps(self, log: FilteringBoundLogger) -> dict[Path, ASGIFramework]:
        """Return what is served to whoever may act, and to whoever may look, by its socket."""
        settings, table = self._live.current.control, self._operations
        acting = control.socket_path(settings.socket, os.environ)
        looking = control.view_path(settings.view_socket, os.environ)
        public, exhaustion = self._local_app, self._look.exhaustion
        apps: dict[Path, ASGIFramework] = {}
        if acting is not None:
            apps[acting] = ControlApp(table, public=public, log=log, exhaustion=exhaustion)
        if looking is not None:
            apps[looking] = ViewApp(
                table, public=public, log=log, exhaustion=exhaustion, acting=acting
            )
        return apps

    async def _start_renewal(self, start: Callable[..., Awaitable[Any]]) -> None:
        self._certificate.start()
        await start(
            "renewal",
            renewal.run,
            certificate=self._certificate,
            shown=self._look.metrics.tls_certificate_expiry.set,
            log=self._certificate_log,
            exhaustion=self._look.exhaustion,
        )

    async def _serve(
        self, supervisor: Supervisor, task_status: trio.TaskStatus[tuple[str, ...]]
    ) -> None:
        """Run the HTTP front end until told to stop, then drain."""
        stop_accepting, all_in = trio.Event(), trio.Event()
        async with trio.open_nursery() as front:
            addresses = await _start(
                supervisor,
                front,
                "http",
                listeners.serve,
                app=self._app,
                http=within(limit(), served(self._live.current.http, self._systemd.listen_fds)),
                tls=lambda: self._certificate.context,
                stop_accepting=stop_accepting,
                all_in=all_in,
                logger=self._logs.library_logger("http_server", actor="http"),
                observer=self._look.connections(),
                trusted_proxies=lambda: self._live.current.http.trusted_proxies,
                exhaustion=self._look.exhaustion,
            )
            self._status.started = True
            self._addresses = addresses
            self._log.info("started", version=__version__, addresses=addresses)
            self._reloader.leave_result()
            self._systemd.notifier.ready()
            task_status.started(addresses)
            await self._stop.wait()
            stop_accepting.set()
            await all_in.wait()
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
        for backend in self._pool:
            await backend.client.aclose()
        await self._look.close()
        self._log.info("stopped")

    def _open_client(self, server: ServerConfig) -> BackendClient:
        client = self._make_client(
            server,
            stall_seconds=lambda: self._live.current.backends.stall_timeout_seconds,
            on_abort=partial(self._aborted, server.name),
        )
        isolatable = FaultInjectingClient(
            HostAwareClient(client, self._look.exhaustion), self._fault_injection
        )
        return self._look.client(isolatable, server)

    def _aborted(self, name: str, reason: AbortReason, freed: bool) -> None:
        self._look.pool.aborted(name, reason, freed)
        # Of any other reason the pool learns by the error of the attempt.
        if reason is AbortReason.CANCELLED and not freed:
            self._pool.abort_ignored(name)

    def _actions(self) -> dict[signal.Signals, Callable[[], None]]:
        return {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._reloader.reload,
            signal.SIGUSR1: self._show_tasks,
            signal.SIGUSR2: self._toggle_debug,
        }

    def _apply(self, config: Config) -> None:
        self._pool.apply(config.backends.servers)  # or raises, and has changed nothing
        self._fault_injection.rejoin("the configuration was reloaded")
        self._logs.level = config.log.level
        self._look.capture.override = None
        # What is lacking for the rest is no reason to go back: a certificate is looked at again.
        for then in (
            partial(renewal.take, self._certificate, self._certificate_log),
            partial(self._warn, config),
        ):
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

    def _warn(self, config: Config) -> None:
        of_host = too_few_for(config.http, limit())
        for sentence in (*self._warnings(config), *of_host, *otel_variables.warnings(os.environ)):
            self._log.warning("config_warning", detail=sentence)

    def _current_warnings(self) -> list[str]:
        return [*self._warnings(self._live.current), *self._certificate.warnings(time.time())]

    def _warnings(self, config: Config) -> list[str]:
        """Return what deserves a word in ``config``, by the sockets that are really open."""
        return warnings(config, look_at(self._systemd.listen_fds, config.http.bind))

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
