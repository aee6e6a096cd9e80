"""The servers in service: their pool and its history, their clients, and who watches them."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon import __version__, timekeeper
from ai_ticket_daemon.backends.kobold.abort import AbortEnd, AbortReason
from ai_ticket_daemon.backends.observation import SlotEnd
from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjectingClient, FaultInjection
from ai_ticket_daemon.backends.wrappers.host_lacks import HostAwareClient
from ai_ticket_daemon.backends.wrappers.plain_text import PlainTextClient
from ai_ticket_daemon.control.history import PoolHistory
from ai_ticket_daemon.pool import persistence, prober
from ai_ticket_daemon.pool.pool import BackendPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.backends import ServerConfig
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.liveness import Liveness
    from ai_ticket_daemon.reloader import LiveConfig
    from ai_ticket_daemon.store.port import EventStore
    from ai_ticket_daemon.telemetry.instrumentation import Instrumentation
    from ai_ticket_daemon.telemetry.logs.logs import Logs


class Servers:
    """What the daemon knows of its servers, and how it reaches them.

    Args:
        live: the configuration in force.
        store: remembers the servers over a restart.
        look: looks on.
        logs: where log lines go.
        clock: the time of what is remembered.
        make_client: makes the client of a server; see :func:`backends.factory.open_client`.
    """

    def __init__(
        self,
        *,
        live: LiveConfig,
        store: EventStore,
        look: Instrumentation,
        logs: Logs,
        clock: Clock,
        make_client: Callable[..., BackendClient],
    ) -> None:
        self._live = live
        self._store = store
        self._look = look
        self._logs = logs
        self._clock = clock
        self._make_client = make_client
        log = logs.logger(actor="app")
        self.fault_injection = FaultInjection(
            others_usable=lambda names: any(
                b.health.usable for b in self.pool if b.name not in names
            ),
            on_end=lambda reason: log.warning("severance_ended", reason=reason),
        )
        self.history = PoolHistory(
            look.pool, store, log=logs.logger(actor="history"), now=clock.now
        )
        self.pool = BackendPool(
            lambda: live.current.backends,
            open_client=self._open_client,
            observer=look.guarded(self.history, "pool"),
        )

    async def start(self, start: Callable[..., Awaitable[Any]], liveness: Liveness) -> None:
        """Recall what is known of the servers, and only then look at them."""
        await persistence.restore(
            pool=self.pool,
            store=self._store,
            rise=self._live.current.backends.rise,
            log=self._logs.logger(actor="keeper"),
            now=self._clock.now,
        )
        await start(
            "keeper",
            persistence.run,
            pool=self.pool,
            store=self._store,
            log=self._logs.logger(actor="keeper"),
            now=self._clock.now,
        )
        self.history.note(f"the daemon was started: version {__version__}, process {os.getpid()}")
        await start("history", self.history.run)
        await start(
            "timekeeper",
            timekeeper.run,
            clock=self._clock,
            store=self._store,
            log=self._logs.logger(actor="timekeeper"),
            note=self.history.note,
            exhaustion=self._look.exhaustion,
        )
        await start(
            "prober",
            prober.run,
            pool=self.pool,
            settings=lambda: self._live.current.backends,
            liveness=liveness,
            exhaustion=self._look.exhaustion,
        )

    def apply(self, config: Config) -> None:
        """Use the servers of ``config`` from now on, or raise and have changed nothing."""
        self.pool.apply(config.backends.servers)
        self.fault_injection.rejoin("the configuration was reloaded")

    async def close(self) -> None:
        """Close every connection to a server."""
        for backend in self.pool:
            await backend.client.aclose()

    def _open_client(self, server: ServerConfig) -> BackendClient:
        client = self._make_client(
            server,
            stall_seconds=lambda: self._live.current.backends.stall_timeout_seconds,
            on_abort=partial(self._aborted, server.name),
        )
        plain = PlainTextClient(client, lambda: self._live.current.backends.escape_template_tokens)
        aware = HostAwareClient(plain, self._look.exhaustion)
        return self._look.client(FaultInjectingClient(aware, self.fault_injection), server)

    def _aborted(self, name: str, reason: AbortReason, end: AbortEnd) -> None:
        self._look.pool.aborted(name, reason, end)
        if end.slot is SlotEnd.READING:
            self.pool.reads_on(name, end.reading_seconds)
        elif end.over:
            self.pool.reads_no_more(name)
        # Of any other reason the pool learns by the error of the attempt.
        if end.slot is SlotEnd.TAKEN and reason is AbortReason.CANCELLED:
            self.pool.abort_ignored(name)
