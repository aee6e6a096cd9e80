"""The routes of the HTTP surface, as a QuartTrio app."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
)

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.server import routes
from ai_ticket_daemon.server.access import Gate
from ai_ticket_daemon.server.answers import health_object, retry_after
from ai_ticket_daemon.server.batch import post_events
from ai_ticket_daemon.server.exchange import Exchange, json_response
from ai_ticket_daemon.server.headers import JSON_TYPE
from ai_ticket_daemon.server.intake import post_event
from ai_ticket_daemon.server.lookup import delete_event, get_event
from ai_ticket_daemon.server.openapi import openapi_json
from ai_ticket_daemon.server.ports import HealthStatus, NullRequestObserver
from ai_ticket_daemon.server.surface import Surface

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ai_ticket_daemon.config.auth import AuthConfig
    from ai_ticket_daemon.config.events import EventsConfig
    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.rate_limit import RateLimitConfig
    from ai_ticket_daemon.server.ports import HealthView, Pipeline, RequestObserver

HEARTBEAT_SECONDS = 10.0
WRITE_TIMEOUT_SECONDS = 30.0


class TicketApp(QuartTrio):
    """Quart for its routing; requests and errors go through :class:`Exchange`."""

    asgi_http_class = Exchange

    def __init__(self, surface: Surface) -> None:
        super().__init__("ai_ticket_daemon", static_folder=None)
        self.surface = surface
        self.url_map.merge_slashes = False
        self.config.update(
            BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None, PROVIDE_AUTOMATIC_OPTIONS=False
        )

    async def handle_user_exception(self, error: Exception | BaseExceptionGroup[Any]) -> Response:
        """Answer every failure of a handler in the one shape."""
        if isinstance(error, BaseExceptionGroup) and error.subgroup(trio.Cancelled) is not None:
            raise error
        exchange = Exchange.of(request)
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        match error:
            case TicketError():
                return exchange.failed(error)
            case HTTPException():
                refusal, status, headers = _explain(error)
                return exchange.refusal(refusal, status, headers)
        return exchange.refusal(exchange.crashed(error), 500)

    async def handle_exception(self, error: Exception) -> Response:
        """Answer a failure of Quart itself."""
        exchange = Exchange.of(request)
        return exchange.refusal(exchange.crashed(error), 500)


def create_app(
    *,
    pipeline: Pipeline,
    health: HealthView,
    http: Callable[[], HttpConfig],
    events: Callable[[], EventsConfig],
    auth: Callable[[], AuthConfig],
    rate_limit: Callable[[], RateLimitConfig],
    observer: RequestObserver | None = None,
    logger: logging.Logger | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    write_timeout_seconds: float = WRITE_TIMEOUT_SECONDS,
    now: Callable[[], float] = time.time,
) -> TicketApp:
    """Return the app that serves the HTTP surface.

    Args:
        pipeline: takes the events.
        health: knows how the daemon does.
        http: returns the ``[http]`` settings in force now.
        events: returns the ``[events]`` settings in force now.
        auth: returns the ``[auth]`` settings in force now.
        rate_limit: returns the ``[rate_limit]`` settings in force now.
        observer: told of each request.
        logger: told of each handler that crashed.
        heartbeat_seconds: the longest silence in a stream.
        write_timeout_seconds: how long a client may refuse to read before it counts as gone.
        now: seconds since the Unix epoch.
    """
    app = TicketApp(
        Surface(
            pipeline=pipeline,
            health=health,
            http=http,
            events=events,
            gate=Gate(auth=auth, rate_limit=rate_limit, http=http),
            observer=observer or NullRequestObserver(),
            logger=logger or logging.getLogger("ai_ticket_daemon.server"),
            heartbeat_seconds=heartbeat_seconds,
            write_timeout_seconds=write_timeout_seconds,
            now=now,
        )
    )
    surface, openapi = app.surface, openapi_json()

    async def get_health() -> Response:
        report = surface.health.report()
        well = report.status is not HealthStatus.UNHEALTHY
        return _report(health_object(report), well=well)

    async def get_live() -> Response:
        return json_response(200, {"live": True})

    async def get_ready() -> Response:
        report = surface.health.report()
        return _report({"ready": report.ready, "reasons": report.reasons}, well=report.ready)

    async def get_openapi() -> Response:
        return Response(openapi, 200, {"content-type": JSON_TYPE})

    for route, view in (
        (routes.POST_EVENT, partial(_of_this_request, post_event, surface)),
        (routes.GET_EVENT, partial(_of_this_request, get_event, surface)),
        (routes.DELETE_EVENT, partial(_of_this_request, delete_event, surface)),
        (routes.POST_EVENTS, partial(_of_this_request, post_events, surface)),
        (routes.GET_HEALTH, get_health),
        (routes.GET_LIVE, get_live),
        (routes.GET_READY, get_ready),
        (routes.GET_OPENAPI, get_openapi),
    ):
        rule = route.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, route.operation, view, methods=[route.method])
    return app


async def _of_this_request(
    handler: Callable[..., Awaitable[Response]], surface: Surface, **parameters: str
) -> Response:
    return await handler(surface, Exchange.of(request), **parameters)


def _explain(error: HTTPException) -> tuple[TicketError, int, dict[str, str]]:
    """Return what an error of werkzeug is called here, its status, and its headers."""
    match error:
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            refusal = RequestRefused(
                ErrorCode.METHOD_NOT_ALLOWED,
                f"{request.path} does not take {request.method}; use {allowed}.",
                details={"allowed": sorted(error.valid_methods or ())},
            )
            return refusal, refusal.http_status, {"allow": allowed}
        case NotFound():
            refusal = RequestRefused(
                ErrorCode.NOT_FOUND, "There is no such route; /openapi.json lists them all."
            )
        case _:
            refusal = RequestRefused(
                ErrorCode.INVALID_REQUEST, f"The request cannot be served: {error.name}."
            )
            return refusal, error.code or 400, {}
    return refusal, refusal.http_status, {}


def _report(value: object, *, well: bool) -> Response:
    if well:
        return json_response(200, value)
    return json_response(503, value, {"retry-after": str(retry_after(None))})
