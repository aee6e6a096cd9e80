"""How the daemon does, put together from what its parts know: ``/health`` and ``/ready``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_ticket_daemon import __version__
from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.pool.backend import GuestReason
from ai_ticket_daemon.pool.selection import serving
from ai_ticket_daemon.server.ports import BackendReport, HealthReport, HealthStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.store.port import EventStore


@dataclass(slots=True)
class DaemonHealth:
    """Answers for the whole daemon.

    ``started`` is set once everything has; ``queue`` holds the number of events by state, as last
    counted. ``missing`` tells which server an operator wants all to use that is not known here.
    """

    pool: BackendPool
    pipeline: AsyncInferencePipeline
    store: EventStore
    missing: Callable[[], str | None] = lambda: None
    exhaustion: Exhaustion = field(default_factory=Exhaustion)
    started: bool = False
    queue: Mapping[str, int] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def report(self) -> HealthReport:
        """Return how things stand now."""
        usable = self.pool.usable and self.store.fault is None
        active = serving(self.pool, self.pool.active)
        draining = self.pipeline.draining
        if not usable:
            status = HealthStatus.UNHEALTHY
        elif self.pool.active.role is BackendRole.STANDBY or self._ordered():
            status = HealthStatus.DEGRADED
        else:
            status = HealthStatus.HEALTHY
        return HealthReport(
            status=status,
            ready=self.started and usable and not draining,
            draining=draining,
            version=__version__,
            uptime_seconds=round(time.monotonic() - self._since, 3),
            reasons=tuple(self._reasons()),
            backends=tuple(
                BackendReport(
                    backend.name,
                    backend.config.role.value,
                    backend.health.state.value,
                    active=backend in active,
                    in_flight=backend.in_flight,
                )
                for backend in self.pool
            ),
            queue=self.queue,
        )

    def _ordered(self) -> bool:
        """Tell whether an operator keeps the daemon from its usual work, or it stops."""
        pipeline = self.pipeline
        return pipeline.paused or pipeline.draining or self.pool.active.pinned is not None

    def _reasons(self) -> Iterator[str]:
        if not self.started:
            yield "starting"
        for resource in self.exhaustion.now:
            yield f"this host is {resource.lack}: what needs more of it waits"
        if self.store.fault is not None:
            yield f"the store cannot be written: {self.store.fault}"
        admission = self.pipeline.admission
        if admission.draining is not None:
            yield f"{admission.draining}: no new events are taken"
        if admission.paused is not None:
            yield f"{admission.paused}: events are kept, none is started"
        if self.pool.active.pinned is not None:
            yield self.pool.active.detail
        elif self.pool.active.role is BackendRole.STANDBY:
            yield f"on the standby: {self.pool.active.detail}"
        missing = self.missing()
        if missing is not None:
            yield f"an operator pinned {missing} for all daemons of this store: no such server here"
        for backend in self.pool:
            for reason, count in (+backend.guests).items():
                yield f"backend {backend.name} helps out with {count} events: {_GUESTS[reason]}"
        for backend in self.pool:
            if not backend.health.usable:
                yield f"backend {backend.name} is {backend.health.state}: {backend.health.reason}"


_GUESTS = {
    GuestReason.SPILL: "the primaries are busy with requests of others",
    GuestReason.RETRY: "they failed on the servers that serve",
}
