"""The routes there are: one table that the app serves and ``/openapi.json`` describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.tokens import Scope
from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNMATCHED = "unmatched"
"""Stands for every path that is no route, so that no label ever holds what a client made up."""

OTHER_METHOD = "OTHER"

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)

EVERYWHERE = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.INTERNAL_ERROR,
)
"""Codes that any request may meet, whatever its route."""

BEFORE_ANY_ROUTE = (
    (408, ErrorCode.REQUEST_TIMEOUT),
    (429, ErrorCode.RATE_LIMITED),
    (431, ErrorCode.INVALID_REQUEST),
    (501, ErrorCode.INVALID_REQUEST),
    (503, ErrorCode.QUEUE_FULL),
    (505, ErrorCode.INVALID_REQUEST),
)
"""What is answered before the route is known: the request is no valid HTTP, or finds no place."""


@dataclass(frozen=True, slots=True)
class Route:
    """One thing a client can ask for.

    ``errors``: what it may be answered besides its answer. ``scopes``: its caller needs one of
    them, where tokens are asked for; a route without any is open to everybody, and not limited.
    """

    path: str
    method: str
    operation: str
    summary: str
    errors: tuple[ErrorCode, ...] = ()
    scopes: tuple[Scope, ...] = ()


_AT_THE_GATE = (ErrorCode.UNAUTHORISED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED)

_IN_A_BODY = (
    ErrorCode.INVALID_PARAMETER,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.REQUEST_TIMEOUT,
)
_AT_INTAKE = (
    ErrorCode.QUEUE_FULL,
    ErrorCode.MEMORY_EXHAUSTED,
    ErrorCode.HOST_EXHAUSTED,
    ErrorCode.DRAINING,
    ErrorCode.STORE_UNAVAILABLE,
)

POST_EVENT = Route(
    "/event",
    "POST",
    "postEvent",
    "Hand over an event; wait for its completion, read it as it is made, or fetch it later.",
    (
        *_AT_THE_GATE,
        *_IN_A_BODY,
        *_AT_INTAKE,
        ErrorCode.INVALID_INPUT_FORMAT,
        ErrorCode.MISSING_CONTENT_FIELD,
        ErrorCode.PROMPT_EXTRACTION_FAILED,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        ErrorCode.NO_BACKEND_AVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.CANCELLED,
        ErrorCode.API_CONNECTION_ERROR,
        ErrorCode.API_TIMEOUT,
        ErrorCode.API_SERVER_ERROR,
        ErrorCode.API_RATE_LIMITED,
        ErrorCode.API_AUTHENTICATION_ERROR,
        ErrorCode.API_CLIENT_ERROR,
        ErrorCode.API_RESPONSE_FORMAT_ERROR,
        ErrorCode.API_RESPONSE_STRUCTURE_ERROR,
        ErrorCode.API_STALLED,
        ErrorCode.CONTEXT_OVERFLOW,
    ),
    (Scope.SUBMIT,),
)
GET_EVENT = Route(
    "/event/{event_id}",
    "GET",
    "getEvent",
    "Tell how an event stands, or wait for its end.",
    (
        *_AT_THE_GATE,
        ErrorCode.EVENT_NOT_FOUND,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.HOST_EXHAUSTED,
        ErrorCode.STORE_UNAVAILABLE,
    ),
    (Scope.READ, Scope.OPERATE),
)
DELETE_EVENT = Route(
    "/event/{event_id}",
    "DELETE",
    "deleteEvent",
    "Cancel an event, whether it waits or runs.",
    (
        *_AT_THE_GATE,
        ErrorCode.EVENT_NOT_FOUND,
        ErrorCode.HOST_EXHAUSTED,
        ErrorCode.STORE_UNAVAILABLE,
    ),
    (Scope.SUBMIT, Scope.OPERATE),
)
POST_EVENTS = Route(
    "/events",
    "POST",
    "postEvents",
    "Hand over many events at once; each is answered in its place, or as it completes.",
    (*_AT_THE_GATE, *_IN_A_BODY, *_AT_INTAKE, ErrorCode.BATCH_TOO_LARGE),
    (Scope.SUBMIT,),
)
GET_HEALTH = Route("/health", "GET", "getHealth", "Tell how the daemon does, and why.")
GET_LIVE = Route("/live", "GET", "getLive", "Answer as long as the event loop turns.")
GET_READY = Route("/ready", "GET", "getReady", "Tell whether an event sent now would be served.")
GET_OPENAPI = Route("/openapi.json", "GET", "getOpenapi", "Describe this HTTP surface.")

ROUTES: Sequence[Route] = (
    POST_EVENT,
    GET_EVENT,
    DELETE_EVENT,
    POST_EVENTS,
    GET_HEALTH,
    GET_LIVE,
    GET_READY,
    GET_OPENAPI,
)

_ONE_EVENT = "/event/"
_BY_PATH: Mapping[str, Mapping[str, Route]] = {
    path: {route.method: route for route in ROUTES if route.path == path}
    for path in (route.path for route in ROUTES)
}


def find_route(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """Return the route that takes exactly this method and path, and the parts of the path it names.

    ``HEAD`` is taken wherever ``GET`` is.

    Raises:
        RequestRefused: ``not_found`` or ``method_not_allowed``.
    """
    label = route_label(path)
    by_method = _BY_PATH.get(label)
    if by_method is None:
        raise RequestRefused(
            ErrorCode.NOT_FOUND, "There is no such route; /openapi.json lists them all."
        )
    route = by_method.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = sorted({*by_method, *(["HEAD"] if "GET" in by_method else [])})
        # A method that HTTP does not define is not repeated.
        named = method if method in _METHODS else "this method"
        raise RequestRefused(
            ErrorCode.METHOD_NOT_ALLOWED,
            f"{label} does not take {named}; use {', '.join(allowed)}.",
            details={"allowed": allowed},
        )
    if label == GET_EVENT.path:
        return route, {"event_id": path.removeprefix(_ONE_EVENT)}
    return route, {}


def route_label(path: str) -> str:
    """Return the template ``path`` belongs to, fit for a metric's label."""
    if path in _BY_PATH and "{" not in path:
        return path
    if path.startswith(_ONE_EVENT) and path.count("/") == 2 and len(path) > len(_ONE_EVENT):
        return GET_EVENT.path
    return UNMATCHED


def method_label(method: str) -> str:
    """Return ``method`` if HTTP defines it, fit for a metric's label."""
    return method if method in _METHODS else OTHER_METHOD
