"""The HTTP front end: what it serves, where it listens, and the certificate it shows."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.read import otel_variables
from ai_ticket_daemon.host.descriptors import limit, too_few_for, within
from ai_ticket_daemon.server.access.refusals import Refusals
from ai_ticket_daemon.server.app import create_app
from ai_ticket_daemon.server.listen import listeners, renewal
from ai_ticket_daemon.server.listen.handed_over import look_at, served
from ai_ticket_daemon.server.listen.tls import ServedCertificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.host.memory_budget import MemoryBudget
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.reloader import LiveConfig
    from ai_ticket_daemon.status.daemon_status import DaemonStatus
    from ai_ticket_daemon.telemetry.instrumentation import Instrumentation
    from ai_ticket_daemon.telemetry.logs.logs import Logs


class FrontEnd:
    """What clients reach, from the sockets to the pipeline.

    Args:
        live: the configuration in force.
        pipeline: takes the events.
        status: knows how the daemon does.
        look: looks on.
        logs: where log lines go.
        memory: bounds what requests take.
        clock: the time of answers.
        listen_fds: the sockets that systemd handed over, with the names they were given.
    """

    def __init__(
        self,
        *,
        live: LiveConfig,
        pipeline: AsyncInferencePipeline,
        status: DaemonStatus,
        look: Instrumentation,
        logs: Logs,
        memory: MemoryBudget,
        clock: Clock,
        listen_fds: Sequence[tuple[int, str]],
    ) -> None:
        self._live = live
        self._look = look
        self._logs = logs
        self._listen_fds = listen_fds
        self._certificate = ServedCertificate(lambda: live.current.http)
        self._certificate_log = logs.logger(actor="renewal")
        self.addresses: tuple[str, ...] = ()
        """Where it listens; empty before it does."""
        self.stop_accepting = trio.Event()
        """Set it, and no connection is accepted any more."""
        self.all_in = trio.Event()
        """Set when after that no further request can come in."""
        self.refusals = Refusals()
        make_app = partial(
            create_app,
            pipeline=pipeline,
            health=status,
            http=lambda: live.current.http,
            events=lambda: live.current.events,
            observer=look.http(),
            memory=memory,
            exhaustion=look.exhaustion,
            logger=logs.library_logger("handler_crashed", actor="http"),
            now=clock.now,
        )
        self.app = make_app(
            auth=lambda: live.current.auth,
            rate_limit=lambda: live.current.rate_limit,
            refusals=self.refusals,
        )
        self.local_app = make_app(auth=AuthConfig, rate_limit=lambda: RateLimitConfig(requests=0))
        """The same for who may open a control socket: no token is needed, there is no limit."""

    async def start_renewal(self, start: Callable[..., Awaitable[Any]]) -> None:
        """Read the certificate, and read it anew whenever its files change."""
        self._certificate.start()
        await start(
            "renewal",
            renewal.run,
            certificate=self._certificate,
            shown=self._look.metrics.tls_certificate_expiry.set,
            log=self._certificate_log,
            exhaustion=self._look.exhaustion,
        )

    async def start(self, start: Callable[..., Awaitable[Any]]) -> None:
        """Listen and serve."""
        self.addresses = await start(
            "http",
            listeners.serve,
            app=self.app,
            http=within(limit(), served(self._live.current.http, self._listen_fds)),
            tls=lambda: self._certificate.context,
            stop_accepting=self.stop_accepting,
            all_in=self.all_in,
            logger=self._logs.library_logger("http_server", actor="http"),
            observer=self._look.connections(),
            trusted_proxies=lambda: self._live.current.http.trusted_proxies,
            exhaustion=self._look.exhaustion,
        )

    def take_certificate(self) -> None:
        """Serve what the files of the certificate hold now, if it can be used.

        Raises:
            CertificateUnusable: for want of something on this host.
        """
        renewal.take(self._certificate, self._certificate_log)

    def warnings(self, config: Config) -> list[str]:
        """Return what deserves a word in ``config``, by the sockets that are really open."""
        return warnings(config, look_at(self._listen_fds, config.http.bind))

    def standing_warnings(self) -> list[str]:
        """Return what deserves a word now, in the configuration and in what is served."""
        return [*self.warnings(self._live.current), *self._certificate.warnings(time.time())]

    def warn(self, config: Config) -> None:
        """Log what deserves a word in ``config``, on this host and in this environment."""
        log = self._logs.logger(actor="app")
        of_host = too_few_for(config.http, limit())
        for sentence in (*self.warnings(config), *of_host, *otel_variables.warnings(os.environ)):
            log.warning("config_warning", detail=sentence)
