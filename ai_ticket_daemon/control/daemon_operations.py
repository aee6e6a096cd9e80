"""What an operator can ask of the daemon as a whole: to pause, to drain, to tell more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.control.arguments import Captures, Level, Scope
from ai_ticket_daemon.control.operation import Access, Operation
from ai_ticket_daemon.control.orders import Name
from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.control.orders import StandingOrders
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.telemetry.capture import Capture
    from ai_ticket_daemon.telemetry.logs.logs import Logs


class DaemonOperations:
    """Carries out what is asked of the daemon.

    Args:
        orders: takes what is ordered.
        pipeline: tells what still runs.
        logs: have a level.
        capture: keeps payloads.
        stopping: tells whether the daemon is on its way out.
    """

    def __init__(
        self,
        *,
        orders: StandingOrders,
        pipeline: AsyncInferencePipeline,
        logs: Logs,
        capture: Capture,
        stopping: Callable[[], bool],
    ) -> None:
        self._orders = orders
        self._pipeline = pipeline
        self._logs = logs
        self._captures = capture
        self._stopping = stopping

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be asked for."""
        return (
            Operation("pause", Access.ACT, Scope, self._pause),
            Operation("unpause", Access.ACT, Scope, self._unpause),
            Operation("drain", Access.ACT, Scope, self._drain),
            Operation("resume", Access.ACT, Scope, self._resume),
            Operation("log-level", Access.ACT, Level, self._log_level),
            Operation("capture", Access.ACT, Captures, self._capture),
        )

    async def _pause(self, wanted: Scope) -> object:
        reached = await self._orders.give(Name.PAUSED, "yes", here=wanted.here)
        return {"paused": True, "in_flight": self._pipeline.in_flight} | reached

    async def _unpause(self, wanted: Scope) -> object:
        reached = await self._orders.give(Name.PAUSED, "", here=wanted.here)
        return {"paused": False} | reached

    async def _drain(self, wanted: Scope) -> object:
        reached = await self._orders.give(Name.DRAINING, "yes", here=wanted.here)
        return {"draining": True, "in_flight": self._pipeline.in_flight} | reached

    async def _resume(self, wanted: Scope) -> object:
        if self._stopping():
            raise RequestRefused(ErrorCode.DRAINING, "The daemon is stopping; start it anew.")
        reached = await self._orders.give(Name.DRAINING, "", here=wanted.here)
        return {"draining": False} | reached

    async def _log_level(self, wanted: Level) -> object:
        self._logs.level = wanted.level
        return {"log_level": wanted.level.value, "until": "the next reload or restart"}

    async def _capture(self, wanted: Captures) -> object:
        self._captures.override = wanted.payloads
        return {
            "capture_payloads": wanted.payloads,
            "directory": str(self._captures.directory),
            "until": "the next reload or restart",
        }
