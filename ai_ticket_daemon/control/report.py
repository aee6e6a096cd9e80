"""One screen of facts about the daemon: what ``ai-ticketctl status`` shows."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.config.backends import Failback
from ai_ticket_daemon.control.orders import Name
from ai_ticket_daemon.pool.failover import hold_down_seconds
from ai_ticket_daemon.pool.selection import serving
from ai_ticket_daemon.status.line import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import Counter

    from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjection
    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.control.history import PoolHistory
    from ai_ticket_daemon.control.orders import StandingOrders
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.reloader import LiveConfig, Reloader
    from ai_ticket_daemon.server.access.refusals import Refusals
    from ai_ticket_daemon.status.health import DaemonHealth
    from ai_ticket_daemon.store.port import EventStore
    from ai_ticket_daemon.telemetry.logs.logs import Logs
    from ai_ticket_daemon.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of the daemon an operator can look at and act on.

    ``stopping`` tells whether the daemon is on its way out; ``addresses`` where it listens;
    ``warnings`` what deserves a word in the configuration in force.
    """

    pool: BackendPool
    pipeline: AsyncInferencePipeline
    store: EventStore
    health: DaemonHealth
    live: LiveConfig
    reloader: Reloader
    logs: Logs
    metrics: Metrics
    history: PoolHistory
    orders: StandingOrders
    fault_injection: FaultInjection
    clock: Clock
    refusals: Refusals
    stopping: Callable[[], bool]
    addresses: Callable[[], tuple[str, ...]]
    warnings: Callable[[], Sequence[str]]


class Reporter:
    """Makes the report; has to be shown the time now and then, to know rates."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rate = Rate()
        self._per_second = 0.0

    def sample(self) -> None:
        """Take note of how many events have ended by now."""
        total = sum(value for _, value in counted(self._parts.metrics.pipeline_events))
        self._per_second = self._rate.per_second(total, trio.current_time())

    async def report(self) -> dict[str, Any]:
        """Return how things stand."""
        parts, config = self._parts, self._parts.live.current
        health, active = parts.health.report(), parts.pool.active
        queue, oldest, now = dict(health.queue), None, parts.clock.now()
        if parts.store.fault is None:
            queue = {k.value: v for k, v in (await parts.store.counts()).states.items()}
            oldest = await parts.store.oldest_queued_at()
        self.sample()
        return {
            "status": health.status.value,
            "ready": health.ready,
            "reasons": list(health.reasons),
            "version": health.version,
            "pid": os.getpid(),
            "uptime_seconds": health.uptime_seconds,
            "addresses": list(parts.addresses()),
            "draining": parts.pipeline.draining,
            "paused": parts.pipeline.paused,
            "serving": {
                "role": active.role.value,
                "pinned": active.pinned,
                "reason": active.reason.value,
                "detail": active.detail,
            },
            "failback_after_seconds": (
                hold_down_seconds(active, config.backends)
                if config.backends.failback is Failback.AUTO
                else None
            ),
            "group": await self._group(),
            "severed": {
                "servers": sorted(parts.fault_injection.names),
                "left_seconds": round(parts.fault_injection.left_seconds, 3),
            },
            "backends": self.backends(),
            "queue": queue,
            "oldest_queued_seconds": None if oldest is None else max(0.0, now - oldest),
            "events_per_second": round(self._per_second, 4),
            "in_flight": parts.pipeline.in_flight,
            "max_concurrency": config.pipeline.max_concurrency,
            "capacity": parts.pool.capacity,
            "wasted": wasted(parts.metrics),
            "warnings": list(parts.warnings()),
            "reload": {"refused": list(parts.reloader.problems)},
            "store": {"url": config.store.url, "fault": parts.store.fault},
            "refused_clients": [asdict(refused) for refused in parts.refusals.most()],
            "log_level": parts.logs.level.value,
            "capture_payloads": config.log.capture_payloads,
            "metrics": str(config.metrics.bind),
        }

    async def _group(self) -> dict[str, Any]:
        """Return what was ordered for all daemons of the store, and who they are."""
        orders, members = self._parts.orders, []
        if self._parts.store.fault is None:
            members = [member.told for member in await orders.members()]
        standing = {
            name: {"value": order.value, "since": order.at + self._parts.clock.ahead}
            for name, order in orders.given.items()
            if order.value and name != Name.FAILBACK
        }
        return {"orders": standing, "members": members}

    def backends(self) -> list[dict[str, Any]]:
        """Return each server, and why it is as it is."""
        pool = self._parts.pool
        active = serving(pool, pool.active)
        return [
            {
                "name": backend.name,
                "role": backend.config.role.value,
                "kind": backend.config.kind.value,
                "url": backend.config.url,
                "state": backend.health.state.value,
                "reason": backend.health.reason,
                "usable": backend.health.usable,
                "active": backend in active,
                "pinned": pool.active.pinned == backend.name,
                "in_flight": backend.in_flight,
                "max_in_flight": backend.config.max_in_flight,
                "resting_seconds": max(0.0, pool.pause_left_seconds(backend)),
            }
            for backend in pool
        ]


def wasted(metrics: Metrics) -> list[dict[str, Any]]:
    """Return what was thrown away by server and cause: seconds, and tokens as far as known.

    ``unknown``: how many of the attempts made tokens that nobody could count.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, counter in {
        "seconds": metrics.kobold_wasted_seconds,
        "tokens": metrics.kobold_wasted_tokens,
    }.items():
        for labels, value in counted(counter):
            place = found.setdefault(
                (labels["backend"], labels["cause"]),
                {"seconds": 0.0, "tokens": 0, "attempts": 0, "unknown": 0},
            )
            place[key] = round(value, 3) if key == "seconds" else round(value)
    for labels, value in counted(metrics.kobold_wasted_attempts):
        place = found[labels["backend"], labels["cause"]]
        place["attempts"] += round(value)
        if labels["tokens"] == "unknown":
            place["unknown"] += round(value)
    return [
        {"backend": backend, "cause": cause, **figures}
        for (backend, cause), figures in found.items()
    ]


def counted(counter: Counter) -> list[tuple[dict[str, str], float]]:
    """Return what a counter has counted, for each set of labels."""
    return [
        (dict(sample.labels), sample.value)
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
