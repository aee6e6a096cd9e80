"""The HTTP surface: what serves a request, however it came."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.host.memory_budget import MemoryBudget
from ai_ticket_daemon.server import asgi
from ai_ticket_daemon.server.access.access_control import AccessControl
from ai_ticket_daemon.server.access.refusals import Refusals
from ai_ticket_daemon.server.context import ServerContext
from ai_ticket_daemon.server.http_exchange import HttpExchange
from ai_ticket_daemon.server.openapi.document import openapi_json
from ai_ticket_daemon.server.ports import RequestObserver
from ai_ticket_daemon.server.route_table import ROUTES
from ai_ticket_daemon.server.routes import Routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

    from ai_ticket_daemon.config.auth import AuthConfig
    from ai_ticket_daemon.config.events import EventsConfig
    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.rate_limit import RateLimitConfig
    from ai_ticket_daemon.server.ports import HealthView, Pipeline
    from ai_ticket_daemon.server.request import ClientSide, Request

HEARTBEAT_SECONDS = 10.0
WRITE_TIMEOUT_SECONDS = 30.0


class TicketApp:
    """The HTTP surface: as an ASGI app, and without ASGI for connections of HTTP/1.

    Args:
        context: what every handler is given.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await asgi.serve(
                self.open_exchange,
                scope,
                receive,
                send,
                write_timeout_seconds=self._context.write_timeout_seconds,
            )

    def open_exchange(self, request: Request, client: ClientSide) -> HttpExchange:
        """Return what serves a request that came without ASGI."""
        return HttpExchange(self._context, request, client)


def create_app(
    *,
    pipeline: Pipeline,
    health: HealthView,
    http: Callable[[], HttpConfig],
    events: Callable[[], EventsConfig],
    auth: Callable[[], AuthConfig],
    rate_limit: Callable[[], RateLimitConfig],
    refusals: Refusals | None = None,
    observer: RequestObserver | None = None,
    logger: logging.Logger | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    write_timeout_seconds: float = WRITE_TIMEOUT_SECONDS,
    now: Callable[[], float] = time.time,
    memory: MemoryBudget | None = None,
    exhaustion: Exhaustion | None = None,
) -> TicketApp:
    """Return the app that serves the HTTP surface.

    Args:
        pipeline: takes the events.
        health: knows how the daemon does.
        http: returns the ``[http]`` settings in force now.
        events: returns the ``[events]`` settings in force now.
        auth: returns the ``[auth]`` settings in force now.
        rate_limit: returns the ``[rate_limit]`` settings in force now.
        refusals: counts who is refused.
        observer: told of each request.
        logger: told of each handler that crashed.
        heartbeat_seconds: the longest silence in a stream.
        write_timeout_seconds: how long a client may refuse to read before it counts as gone.
        now: seconds since the Unix epoch.
        memory: bounds what requests take; None for a budget of this app's own.
        exhaustion: told of what the host lacks.
    """
    context = ServerContext(
        routes=Routes(ROUTES),
        openapi=openapi_json(ROUTES),
        pipeline=pipeline,
        health=health,
        http=http,
        events=events,
        access=AccessControl(
            auth=auth, rate_limit=rate_limit, http=http, refusals=refusals or Refusals()
        ),
        observer=observer or RequestObserver(),
        logger=logger or logging.getLogger("ai_ticket_daemon.server"),
        heartbeat_seconds=heartbeat_seconds,
        write_timeout_seconds=write_timeout_seconds,
        now=now,
        memory=memory or MemoryBudget(lambda: http().max_memory_bytes),
        exhaustion=exhaustion or Exhaustion(),
    )
    return TicketApp(context)
