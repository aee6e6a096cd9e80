"""What an operator can ask for to see how the daemon does: one screen of it, or all of it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.config.diff import as_toml
from ai_ticket_daemon.config.values.schema import settings_of
from ai_ticket_daemon.control.arguments import Nothing
from ai_ticket_daemon.control.fields import fields_of
from ai_ticket_daemon.control.operation import Access, Operation
from ai_ticket_daemon.control.orders import Name
from ai_ticket_daemon.task_tree import task_tree
from ai_ticket_daemon.telemetry.redact import redact, redact_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.control.history import PoolHistory
    from ai_ticket_daemon.control.orders import StandingOrders
    from ai_ticket_daemon.status.daemon_status import DaemonStatus
    from ai_ticket_daemon.status.snapshot import Snapshot
    from ai_ticket_daemon.telemetry.logs.logs import Logs


class StatusOperations:
    """Tells how the daemon does.

    Args:
        status: knows it.
        orders: know what was ordered for all daemons of the store, and who they are.
        history: knows what happened to the servers.
        config: the configuration in force.
        logs: have the last lines.
        metrics_page: returns the metrics as Prometheus reads them.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        status: DaemonStatus,
        orders: StandingOrders,
        history: PoolHistory,
        config: Callable[[], Config],
        logs: Logs,
        metrics_page: Callable[[], bytes],
        clock: Clock,
    ) -> None:
        self._daemon_status = status
        self._orders = orders
        self._history = history
        self._config = config
        self._logs = logs
        self._metrics_page = metrics_page
        self._clock = clock

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be asked for."""
        return (
            Operation("status", Access.LOOK, Nothing, self._status),
            Operation("bundle", Access.LOOK, Nothing, self._bundle),
        )

    async def _status(self, _: Nothing) -> dict[str, Any]:
        snapshot, members = self._daemon_status.snapshot(), []
        if snapshot.store_fault is None:
            snapshot = await self._daemon_status.look()
            members = [member.told for member in await self._orders.members()]
        standing = {
            name: {"value": order.value, "since": order.at + self._clock.ahead}
            for name, order in self._orders.given.items()
            if order.value and name != Name.FAILBACK
        }
        return screen_of(snapshot) | {"group": {"orders": standing, "members": members}}

    async def _bundle(self, _: Nothing) -> object:
        root = trio.lowlevel.current_root_task()
        changes = await self._history.between(0, self._clock.now())
        return {
            "status": await self._status(_),
            "config": redact(_settings(self._config())),
            "tasks": "" if root is None else task_tree(root),
            "metrics": self._metrics_page().decode(),
            "logs": [redact_line(line) for line in self._logs.recent()],
            "history": [fields_of(change, self._clock.ahead) for change in changes],
        }


def screen_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return what ``ai-ticketctl status`` shows of the daemon."""
    # While the store cannot be read, nobody knows how long the oldest event has waited.
    known = snapshot.store_fault is None
    return {
        "status": snapshot.status.value,
        "ready": snapshot.ready,
        "reasons": list(snapshot.reasons),
        "version": snapshot.version,
        "pid": os.getpid(),
        "uptime_seconds": snapshot.uptime_seconds,
        "addresses": list(snapshot.addresses),
        "draining": snapshot.draining,
        "paused": snapshot.paused,
        "serving": asdict(snapshot.active),
        "failback_after_seconds": snapshot.failback_after_seconds,
        "severed": asdict(snapshot.isolated),
        "backends": [asdict(backend) for backend in snapshot.backends],
        "queue": dict(snapshot.queue.states),
        "oldest_queued_seconds": snapshot.queue.oldest_queued_seconds if known else None,
        "events_per_second": round(snapshot.events_per_second, 4),
        "in_flight": snapshot.in_flight,
        "max_concurrency": snapshot.max_concurrency,
        "capacity": snapshot.capacity,
        "wasted": [asdict(waste) for waste in snapshot.wasted],
        "warnings": list(snapshot.warnings),
        "reload": {"refused": list(snapshot.reload_problems)},
        "store": {"url": snapshot.store_url, "fault": snapshot.store_fault},
        "refused_clients": [asdict(refused) for refused in snapshot.refused_clients],
        "log_level": snapshot.log_level,
        "capture_payloads": snapshot.capture_payloads,
        "metrics": snapshot.metrics_address,
    }


def _settings(config: Config) -> dict[str, dict[str, Any]]:
    """Return every setting as the file would have it; secrets are masked."""
    found: dict[str, dict[str, Any]] = {}
    for name in settings_of(type(config)):
        section = getattr(config, name)
        found[name] = {
            key: as_toml(getattr(section, field.name))
            for key, (field, _) in settings_of(type(section)).items()
            if (name, key) != ("backends", "server")
        }
    found["servers"] = {
        server.name: {
            key: as_toml(getattr(server, field.name))
            for key, (field, _) in settings_of(type(server)).items()
        }
        for server in config.backends.servers
    }
    return found
