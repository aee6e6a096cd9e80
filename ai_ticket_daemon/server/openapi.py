"""The OpenAPI description of the HTTP surface, made from the tables of routes and codes."""

from __future__ import annotations

from typing import Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.server.answers import to_json
from ai_ticket_daemon.server.headers import (
    JSON_TYPE,
    MAX_KEY_CHARACTERS,
    MAX_WAIT_SECONDS,
    NDJSON_TYPE,
)
from ai_ticket_daemon.server.openapi_schemas import schemas
from ai_ticket_daemon.server.routes import (
    DELETE_EVENT,
    EVERYWHERE,
    GET_EVENT,
    GET_HEALTH,
    GET_LIVE,
    GET_OPENAPI,
    GET_READY,
    POST_EVENT,
    POST_EVENTS,
    ROUTES,
    Route,
)

_Json = dict[str, Any]

_RETRY_AFTER: _Json = {
    "Retry-After": {
        "description": "Seconds until it makes sense to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_APPLIED: _Json = {
    "Preference-Applied": {
        "description": "The preferences that were honoured.",
        "schema": {"type": "string"},
    }
}
_LOCATION: _Json = {
    "Location": {
        "description": "Where to look at the event.",
        "schema": {"type": "string", "format": "uri-reference"},
    }
}
_CHALLENGE: _Json = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}


def openapi_json() -> bytes:
    """Return the description as it is served."""
    return to_json(openapi_document())


def openapi_document() -> _Json:
    """Return the description."""
    paths: _Json = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ai-ticket-daemon",
            "version": __version__,
            "summary": "An event in, a completion or a precise error out.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(route: Route) -> _Json:
    operation: _Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": _answers(route) | _errors((*EVERYWHERE, *route.errors)),
    }
    parameters = _parameters(route)
    if parameters:
        operation["parameters"] = parameters
    if route.scopes:
        scopes = [scope.value for scope in route.scopes]
        # Open where the daemon has no tokens file.
        operation["security"] = [{"bearer": scopes}, {"apiKey": scopes}, {}]
    if route is POST_EVENT:
        operation["requestBody"] = {"required": True, "content": _json_of("EventRequest")}
    if route is POST_EVENTS:
        lines = {NDJSON_TYPE: {"schema": {"$ref": "#/components/schemas/EventRequest"}}}
        content = _json_of("BatchRequest") | lines
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[_Json]:
    parameters = []
    if "{event_id}" in route.path:
        parameters.append(
            _parameter("path", "event_id", {"type": "string", "format": "uuid"}, required=True)
        )
    if route is GET_EVENT:
        seconds = {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0}
        parameters.append(_parameter("query", "wait", seconds))
    if route in (POST_EVENT, POST_EVENTS):
        key = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS}
        parameters += [
            _parameter("header", "Prefer", {"type": "string"}),
            _parameter("header", "Idempotency-Key", key),
        ]
    return parameters


def _parameter(place: str, name: str, schema: _Json, *, required: bool = False) -> _Json:
    return {"in": place, "name": name, "schema": schema, "required": required}


def _answers(route: Route) -> _Json:
    """Return the responses of ``route`` that are not errors."""
    not_now = {"headers": _RETRY_AFTER}
    if route is POST_EVENT:
        stream: dict[str, object] = {"text/event-stream": {"schema": {}}}
        return {
            "200": {
                "description": "The completion; with `stream`, as events of StreamEvent.",
                "content": _json_of("Completion") | stream,
            },
            "202": {
                "description": "Accepted, as preferred; the outcome can be fetched later.",
                "content": _json_of("Accepted"),
                "headers": _LOCATION | _APPLIED,
            },
        }
    if route is POST_EVENTS:
        lines = {NDJSON_TYPE: {"schema": {"$ref": "#/components/schemas/BatchItem"}}}
        content = _json_of("BatchAnswer") | lines
        return {
            "200": {"description": "One answer for each event.", "content": content},
            "202": {
                "description": "Accepted, as preferred, where the item says so.",
                "content": content,
                "headers": _APPLIED,
            },
        }
    if route is GET_HEALTH:
        content = _json_of("Health")
        return {
            "200": {"description": "Healthy or degraded.", "content": content},
            "503": {"description": "Unhealthy.", "content": content, **not_now},
        }
    if route is GET_READY:
        content = _json_of("Ready")
        return {
            "200": {"description": "Ready.", "content": content},
            "503": {"description": "Not ready.", "content": content, **not_now},
        }
    if route in (GET_EVENT, DELETE_EVENT):
        return {"200": {"description": "How it stands.", "content": _json_of("EventStatus")}}
    descriptions = {GET_LIVE: "Alive.", GET_OPENAPI: "This document."}
    return {
        "200": {
            "description": descriptions[route],
            "content": {JSON_TYPE: {"schema": {"type": "object"}}},
        }
    }


def _errors(codes: tuple[ErrorCode, ...]) -> _Json:
    """Return one response for each status, naming the codes that have it."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(HTTP_STATUS[code], []).append(code.value)
    responses: _Json = {}
    for status, names in sorted(by_status.items()):
        shape = {
            "allOf": [
                {"$ref": "#/components/schemas/Error"},
                {"properties": {"error": {"enum": names}}},
            ]
        }
        response: _Json = {
            "description": ", ".join(names),
            "content": {JSON_TYPE: {"schema": shape}},
        }
        if status in (401, 403):
            response["headers"] = _CHALLENGE
        if status in (429, 503):
            response["headers"] = _RETRY_AFTER
        responses[str(status)] = response
    return responses


def _json_of(name: str) -> _Json:
    return {JSON_TYPE: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
