"""``GET /health``, ``/live``, ``/ready`` and ``/openapi.json``: what the daemon says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.server.answers import health_object, retry_after
from ai_ticket_daemon.server.headers import JSON_TYPE
from ai_ticket_daemon.server.response import Response, json_response
from ai_ticket_daemon.server.shapes import Live, Ready
from ai_ticket_daemon.status.snapshot import HealthStatus

if TYPE_CHECKING:
    from ai_ticket_daemon.server.context import ServerContext
    from ai_ticket_daemon.server.http_exchange import HttpExchange


async def get_health(context: ServerContext, _exchange: HttpExchange) -> Response:
    """Tell how the daemon does, and why."""
    snapshot = await context.health.recent()
    well = snapshot.status is not HealthStatus.UNHEALTHY
    return _report(health_object(snapshot), well=well)


async def get_live(_context: ServerContext, _exchange: HttpExchange) -> Response:
    """Answer."""
    return json_response(200, Live(live=True))


async def get_ready(context: ServerContext, _exchange: HttpExchange) -> Response:
    """Tell whether an event sent now would be served."""
    snapshot = context.health.snapshot()
    return _report(Ready(ready=snapshot.ready, reasons=snapshot.reasons), well=snapshot.ready)


async def get_openapi(context: ServerContext, _exchange: HttpExchange) -> Response:
    """Describe the HTTP surface."""
    return Response(200, {"content-type": JSON_TYPE}, context.openapi)


def _report(value: object, *, well: bool) -> Response:
    if well:
        return json_response(200, value)
    return json_response(503, value, {"retry-after": str(retry_after(None))})
