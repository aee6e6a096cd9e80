"""What is served on the view socket: the operations that look, and how the daemon does.

It is for whoever may look and not act. All else is refused, whatever it is, so that nothing is open
here by having been forgotten; and what is refused is logged, once a second at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.control.control_app import PREFIX, ControlApp
from ai_ticket_daemon.control.operation import Access
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.groups import UNKNOWN, group_of
from ai_ticket_daemon.server.answers import error_object, to_json
from ai_ticket_daemon.server.route_table import GET_HEALTH, GET_LIVE, GET_READY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hypercorn.typing import ASGIFramework
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.control.operation import Operation
    from ai_ticket_daemon.host.exhaustion import Exhaustion

OPEN_PATHS = frozenset({GET_HEALTH.path, GET_LIVE.path, GET_READY.path})
"""The public routes that are served here, too."""
TELL_EVERY_SECONDS = 1.0
_GROUP_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_LONGEST_NAME = 64


class ViewApp:
    """The ASGI app of the view socket.

    Args:
        operations: what there is; those that act are refused.
        public: serves :data:`OPEN_PATHS`.
        log: told of what is refused.
        exhaustion: told of what the host lacks.
        acting: the control socket; None if there is none.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        public: ASGIFramework,
        log: FilteringBoundLogger,
        exhaustion: Exhaustion,
        acting: Path | None,
    ) -> None:
        looking = {name: o for name, o in operations.items() if o.access is Access.LOOK}
        self._looking = ControlApp(looking, public=public, log=log, exhaustion=exhaustion)
        self._acting_paths = {PREFIX + name for name in operations.keys() - looking.keys()}
        self._acting = acting
        self._exhaustion = exhaustion
        self._log = log
        self._told_at = float("-inf")
        self._untold = 0
        self._lookups = trio.CapacityLimiter(1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        is_operation = path.startswith(PREFIX) and path not in self._acting_paths
        if is_operation or path in OPEN_PATHS:
            await self._looking(scope, receive, send)
        else:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        name = scope["path"].removeprefix(PREFIX)[:_LONGEST_NAME]
        self._tell(name, scope.get("state") or {})
        refusal = RequestRefused(
            ErrorCode.FORBIDDEN,
            f"This socket is for looking alone, and {name} is not: {await self._way()}.",
        )
        body = to_json(error_object(refusal, event_id=None, trace_id=None))
        headers = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
        ]
        start = {"type": "http.response.start", "status": refusal.http_status, "headers": headers}
        with trio.move_on_after(_ANSWER_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_throw_away, receive)
                await send(start)
                await send({"type": "http.response.body", "body": body, "more_body": False})
                nursery.cancel_scope.cancel()

    def _tell(self, name: str, state: Mapping[str, Any]) -> None:
        """Log what was asked for, and by whom; what comes too fast is only counted."""
        now = trio.current_time()
        if now - self._told_at < TELL_EVERY_SECONDS:
            self._untold += 1
            return
        self._log.warning(
            "control_change",
            operation=name,
            arguments={},
            uid=state.get("peer_uid"),
            pid=state.get("peer_pid"),
            socket="view",
            result=ErrorCode.FORBIDDEN.value,
            untold=self._untold,
        )
        self._told_at, self._untold = now, 0

    async def _way(self) -> str:
        """Return who may do it, and where."""
        if self._acting is None:
            return "control.socket is empty, so nobody can act on this daemon"
        group = await self._group_of(self._acting)
        return f"{self._acting} takes it from root and from members of the group {group}"

    async def _group_of(self, path: Path) -> str:
        try:
            with trio.move_on_after(_GROUP_SECONDS):
                return await trio.to_thread.run_sync(
                    group_of, path, abandon_on_cancel=True, limiter=self._lookups
                )
        except RuntimeError as error:  # no thread is to be had
            if self._exhaustion.meets(error, "control") is None:
                raise
        return UNKNOWN


async def _throw_away(receive: Any) -> None:
    """Read what the client still sends: it reads its answer once that is gone."""
    while (await receive())["type"] == "http.request":
        pass
