"""How the daemon does, put together from what its parts know: the one place that derives it."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon import __version__
from ai_ticket_daemon.config.backends import BackendRole, Failback
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.pool.backend import GuestReason
from ai_ticket_daemon.pool.failover import hold_down_seconds
from ai_ticket_daemon.pool.selection import serving
from ai_ticket_daemon.status.rate import Rate
from ai_ticket_daemon.status.snapshot import (
    ActiveSnapshot,
    BackendSnapshot,
    HealthStatus,
    IsolationSnapshot,
    QueueSnapshot,
    Snapshot,
    WasteSnapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjection
    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.host.exhaustion import Exhaustion
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.status.snapshot import RefusedClient
    from ai_ticket_daemon.store.port import EventStore

_RECENT_SECONDS = 0.1
_LONGEST_COUNT_SECONDS = 0.5
_GUESTS = {
    GuestReason.SPILL: "the primaries are busy with requests of others",
    GuestReason.RETRY: "they failed on the servers that serve",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Whom to ask how the daemon does."""

    pool: BackendPool
    pipeline: AsyncInferencePipeline
    store: EventStore
    fault_injection: FaultInjection
    exhaustion: Exhaustion
    clock: Clock
    config: Callable[[], Config]
    """The configuration in force."""
    missing_pin: Callable[[], str | None]
    """The server that an operator wants all daemons to use, if it is not known here."""
    addresses: Callable[[], tuple[str, ...]]
    """Where the daemon listens."""
    warnings: Callable[[], Sequence[str]]
    """What deserves a word in the configuration and in the certificate that is served."""
    reload_problems: Callable[[], tuple[str, ...]]
    """Why the last reload was refused."""
    refused_clients: Callable[[], Sequence[RefusedClient]]
    """Those that were refused most."""
    log_level: Callable[[], str]
    capture_payloads: Callable[[], int]


class DaemonStatus:
    """Knows how the daemon does now, and how fast it has gone of late.

    ``started`` is set once everything has. :meth:`look` is to be called now and then.
    """

    def __init__(self, sources: Sources) -> None:
        self.started = False
        self._sources = sources
        self._queue = QueueSnapshot()
        self._counted_at = -math.inf
        self._counting = trio.Lock()
        self._rate = Rate()
        self._since = time.monotonic()

    async def recent(self) -> Snapshot:
        """Return how things stand now, the events of the store with it: /health's view.

        They are counted at most ten times a second, and if the store cannot be read in time they
        are as they were last counted.
        """
        with trio.move_on_after(_LONGEST_COUNT_SECONDS), suppress(StoreUnavailable):
            async with self._counting:
                if trio.current_time() - self._counted_at >= _RECENT_SECONDS:
                    await self.look()
        return self.snapshot()

    async def look(self) -> Snapshot:
        """Count the events in the store anew, and return how things stand.

        Raises:
            StoreUnavailable: the store cannot be read; what was counted before stays.
        """
        store, now = self._sources.store, self._sources.clock.now
        self._rate.take(self._sources.pipeline.counters.ended, trio.current_time())
        counts = await store.counts()
        oldest = await store.oldest_queued_at()
        self._queue = QueueSnapshot(
            states={state.value: count for state, count in counts.states.items()},
            oldest_queued_seconds=None if oldest is None else max(0.0, now() - oldest),
            difference=counts.difference,
        )
        self._counted_at = trio.current_time()
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Return how things stand now; the events in the store are as they were last counted."""
        sources, config = self._sources, self._sources.config()
        pool, pipeline, store = sources.pool, sources.pipeline, sources.store
        usable = pool.usable and store.fault is None
        return Snapshot(
            status=_status(pool, pipeline, usable=usable),
            ready=self.started and usable and not pipeline.draining,
            reasons=tuple(_reasons(sources, started=self.started)),
            warnings=(*sources.warnings(), *_of_another_kind(pool)),
            reload_problems=sources.reload_problems(),
            version=__version__,
            uptime_seconds=round(time.monotonic() - self._since, 3),
            addresses=sources.addresses(),
            draining=pipeline.draining,
            paused=pipeline.paused,
            active=ActiveSnapshot(
                role=pool.active.role.value,
                pinned=pool.active.pinned,
                reason=pool.active.reason.value,
                detail=pool.active.detail,
            ),
            backends=tuple(_backends(pool)),
            capacity=pool.capacity,
            failback_after_seconds=(
                hold_down_seconds(pool.active, config.backends)
                if config.backends.failback is Failback.AUTO
                else None
            ),
            isolated=IsolationSnapshot(
                servers=tuple(sorted(sources.fault_injection.names)),
                left_seconds=round(sources.fault_injection.left_seconds, 3),
            ),
            queue=self._queue,
            in_flight=pipeline.in_flight,
            max_concurrency=config.pipeline.max_concurrency,
            events_per_second=self._rate.per_second,
            wasted=tuple(_wasted(pipeline)),
            refused_clients=tuple(sources.refused_clients()),
            store_url=config.store.url,
            store_fault=store.fault,
            log_level=sources.log_level(),
            capture_payloads=sources.capture_payloads(),
            metrics_address=str(config.metrics.bind),
        )


def _status(pool: BackendPool, pipeline: AsyncInferencePipeline, *, usable: bool) -> HealthStatus:
    if not usable:
        return HealthStatus.UNHEALTHY
    # An operator keeps the daemon from its usual work, or it stops.
    ordered = pipeline.paused or pipeline.draining or pool.active.pinned is not None
    on_standby = pool.active.role is BackendRole.STANDBY
    return HealthStatus.DEGRADED if ordered or on_standby else HealthStatus.HEALTHY


def _backends(pool: BackendPool) -> Iterator[BackendSnapshot]:
    active = serving(pool, pool.active)
    for backend in pool:
        yield BackendSnapshot(
            name=backend.name,
            role=backend.config.role.value,
            kind=backend.config.kind.value,
            url=backend.config.url,
            state=backend.health.state.value,
            reason=backend.reason,
            usable=backend.health.usable,
            active=backend in active,
            pinned=pool.active.pinned == backend.name,
            in_flight=backend.in_flight,
            max_in_flight=backend.config.max_in_flight,
            version=backend.health.software.version,
            features=backend.health.software.features,
            resting_seconds=max(0.0, pool.pauses.left_seconds(backend)),
            prompt_tokens_per_second=backend.health.prompt_tokens_per_second,
            written_tokens_per_second=backend.health.written_tokens_per_second,
        )


def _of_another_kind(pool: BackendPool) -> Iterator[str]:
    for backend in pool:
        better = backend.health.software.better_kind
        if better is not None:
            yield (
                f'backend {backend.name} is of kind "{better}": as "{backend.config.kind}" its '
                "slot stays taken when an event is cancelled, and its prompts are not counted; "
                f'set `kind = "{better}"`'
            )


def _wasted(pipeline: AsyncInferencePipeline) -> Iterator[WasteSnapshot]:
    for (backend, cause), wasted in pipeline.counters.wasted.items():
        yield WasteSnapshot(
            backend=backend,
            cause=cause,
            seconds=round(wasted.seconds, 3),
            tokens=wasted.tokens,
            attempts=wasted.attempts,
            unknown=wasted.unknown,
        )


def _reasons(sources: Sources, *, started: bool) -> Iterator[str]:
    pool, pipeline, store = sources.pool, sources.pipeline, sources.store
    if not started:
        yield "starting"
    for resource in sources.exhaustion.now:
        yield f"this host is {resource.lack}: what needs more of it waits"
    if store.fault is not None:
        yield f"the store cannot be written: {store.fault}"
    admission = pipeline.admission
    if admission.draining is not None:
        yield f"{admission.draining}: no new events are taken"
    if admission.paused is not None:
        yield f"{admission.paused}: events are kept, none is started"
    if pool.active.pinned is not None:
        yield pool.active.detail
    elif pool.active.role is BackendRole.STANDBY:
        yield f"on the standby: {pool.active.detail}"
    missing = sources.missing_pin()
    if missing is not None:
        yield f"an operator pinned {missing} for all daemons of this store: no such server here"
    for backend in pool:
        for reason, count in (+backend.guests).items():
            yield f"backend {backend.name} helps out with {count} events: {_GUESTS[reason]}"
    for backend in pool:
        if not backend.health.usable:
            yield f"backend {backend.name} is {backend.health.state}: {backend.health.reason}"
