"""What an operator can ask for about servers: look at them, say which serves, rehearse a loss."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.control.arguments import ByName, Isolated, Nothing, OneServer, Scope
from ai_ticket_daemon.control.operation import Access, Operation
from ai_ticket_daemon.control.orders import Name
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.pool.failover import switches_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.wrappers.fault_injection import FaultInjection
    from ai_ticket_daemon.control.orders import StandingOrders
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.status.daemon_status import DaemonStatus


class BackendOperations:
    """Carries out what is asked about servers.

    Args:
        status: knows how they do.
        pool: has them.
        pipeline: tells whether events are started, without which there is no drill.
        orders: takes what is ordered.
        fault_injection: makes servers unreachable for a drill.
        stopping: tells whether the daemon is on its way out.
    """

    def __init__(
        self,
        *,
        status: DaemonStatus,
        pool: BackendPool,
        pipeline: AsyncInferencePipeline,
        orders: StandingOrders,
        fault_injection: FaultInjection,
        stopping: Callable[[], bool],
    ) -> None:
        self._status = status
        self._pool = pool
        self._pipeline = pipeline
        self._orders = orders
        self._fault_injection = fault_injection
        self._stopping = stopping

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be asked for."""
        return (
            Operation("backends", Access.LOOK, Nothing, self._backends),
            Operation("failover", Access.ACT, ByName, self._failover),
            Operation("failback", Access.ACT, Scope, self._failback),
            Operation("auto", Access.ACT, Scope, self._auto),
            Operation("wake", Access.ACT, OneServer, self._wake),
            Operation("sever", Access.ACT, Isolated, self._isolate),
            Operation("mend", Access.ACT, Nothing, self._rejoin),
        )

    async def _backends(self, _: Nothing) -> object:
        snapshot = self._status.snapshot()
        return {
            "serving": asdict(snapshot.active),
            "backends": [asdict(backend) for backend in snapshot.backends],
        }

    async def _failover(self, wanted: ByName) -> object:
        self._known(wanted.name)
        return await self._order(Name.PINNED, wanted.name, wanted)

    def _known(self, name: str) -> None:
        names = [backend.name for backend in self._pool]
        if name not in names:
            raise RequestRefused(
                ErrorCode.NOT_FOUND, f"There is no server {name}; there are {', '.join(names)}."
            )

    async def _failback(self, wanted: Scope) -> object:
        pool = self._pool
        if not pool.failback():
            why = (
                f"{pool.active.pinned} is pinned: ask for auto first"
                if pool.active.pinned is not None
                else "no primary is usable"
            )
            raise RequestRefused(ErrorCode.NO_BACKEND_AVAILABLE, f"There is no way back: {why}.")
        return await self._order(Name.FAILBACK, "asked", wanted)

    async def _auto(self, wanted: Scope) -> object:
        return await self._order(Name.PINNED, "", wanted)

    async def _wake(self, wanted: OneServer) -> object:
        """Have a server load its model; how that goes, its state tells."""
        self._known(wanted.name)
        health = self._pool[wanted.name].health
        if health.has_model:
            why = f"{wanted.name} is {health.state.value}: its model is loaded."
            raise RequestRefused(ErrorCode.INVALID_REQUEST, why)
        self._pool.wake(wanted.name)
        return {"server": wanted.name, "state": health.state.value}

    async def _order(self, name: Name, value: str, wanted: Scope) -> dict[str, object]:
        """Give an order about the servers; return who serves then, and whom it reached."""
        reached = await self._orders.give(name, value, here=wanted.here)
        return asdict(self._status.snapshot().active) | reached

    async def _isolate(self, wanted: Isolated) -> object:
        """Isolate the primaries for a drill; whoever asks for it does not have to come back."""
        pool, pipeline = self._pool, self._pipeline
        primaries = [b.name for b in pool if b.config.role is BackendRole.PRIMARY]
        reasons = {
            "servers are isolated already": bool(self._fault_injection.names),
            "a server is pinned": pool.active.pinned is not None,
            "the primaries do not serve": pool.active.role is not BackendRole.PRIMARY,
            "the role has changed so often within the last minute that it would not": (
                not switches_left(pool.active, trio.current_time())
            ),
            "no standby is usable": not any(
                b.health.usable for b in pool if b.name not in primaries
            ),
            "the daemon is paused, drains or stops": (
                pipeline.paused or pipeline.draining or self._stopping()
            ),
        }
        against = [reason for reason, holds in reasons.items() if holds]
        if against:
            raise RequestRefused(ErrorCode.INVALID_REQUEST, f"No drill now: {'; '.join(against)}.")
        self._fault_injection.isolate(primaries, wanted.seconds)
        return {"severed": primaries, "seconds": wanted.seconds}

    async def _rejoin(self, _: Nothing) -> object:
        self._fault_injection.rejoin("an operator asked for it")
        return {"severed": []}
