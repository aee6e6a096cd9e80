"""A whole daemon inside a test: real sockets on free ports, its log at hand."""

from __future__ import annotations

import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.app import Daemon
from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
from ai_ticket_daemon.config.control import ControlConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.config.metrics import MetricsConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.config.telemetry import TelemetryConfig, TracesExporter
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.config.values.addresses import TcpBind
from ai_ticket_daemon.telemetry.logs.logs import Logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_FREE_PORT = TcpBind("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that serves at ``url``; stopped at the end of its block, or by :meth:`stop`."""

    url: str
    daemon: Daemon
    stopped: trio.Event
    _stream: io.StringIO

    def stop(self) -> None:
        """Do what SIGTERM does."""
        self.daemon.stop()

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event name, oldest first."""
        lines = map(json.loads, self._stream.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]


def config_for(*servers: ServerConfig) -> Config:
    """Return a configuration for ``servers`` that listens on free ports and probes fast.

    A probe may take long: a server on a busy machine is not down.
    """
    return Config(
        http=HttpConfig(bind=(_FREE_PORT,)),
        metrics=MetricsConfig(bind=_FREE_PORT),
        rate_limit=RateLimitConfig(requests=0),
        telemetry=TelemetryConfig(traces=TracesExporter.NONE),
        store=StoreConfig(url="memory:"),
        control=ControlConfig(socket=None, view_socket=None),
        backends=BackendsConfig(
            servers=servers,
            probe_interval_seconds=0.2,
            probe_fast_interval_seconds=0.05,
            probe_timeout_seconds=10,
        ),
    )


@asynccontextmanager
async def open_daemon(config: Config) -> AsyncIterator[RunningDaemon]:
    """Run a daemon for the length of a block; what it raises comes out of the block."""
    stream = io.StringIO()
    logs = Logs(LogLevel.DEBUG, LogFormat.JSON, stream=stream)
    daemon = Daemon(config, load=lambda: replace(config), logs=logs)
    stopped = trio.Event()

    async def run(*, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        await daemon.run(task_status=task_status)
        stopped.set()

    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(run)
        yield RunningDaemon(f"http://{addresses[0]}", daemon, stopped, stream)
        nursery.cancel_scope.cancel()
