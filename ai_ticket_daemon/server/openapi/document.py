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
from ai_ticket_daemon.server.openapi.examples import (
    EVENT_ID,
    answer_examples,
    error_example,
    request_examples,
)
from ai_ticket_daemon.server.openapi.schemas import ref, schemas
from ai_ticket_daemon.server.routes import (
    BEFORE_ANY_ROUTE,
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
_REPLAYED: _Json = {
    "Idempotency-Replayed": {
        "description": "`true` where the key stood for an event that was there already.",
        "schema": {"type": "string", "const": "true"},
    }
}
_PREFER = "RFC 7240: `respond-async` and `wait=N` say how long to wait for the outcome."
_KEY = "A name of the client's own; what is sent again under it is not done again."
_EVENT_STREAM = "text/event-stream"
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
        "servers": [
            {"url": "/", "description": "Where this description comes from."},
            {
                "url": "http://{host}:{port}",
                "description": "Where a daemon listens unless `http.bind` says otherwise.",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "5000"}},
            },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "examples": _named({code.value: error_example(code) for code in ErrorCode}),
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
        "responses": _responses(route),
    }
    parameters = _parameters(route)
    if parameters:
        operation["parameters"] = parameters
    if route.scopes:
        scopes = [scope.value for scope in route.scopes]
        # Open where the daemon has no tokens file.
        operation["security"] = [{"bearer": scopes}, {"apiKey": scopes}, {}]
    if route in (POST_EVENT, POST_EVENTS):
        content = _json_of("EventRequest" if route is POST_EVENT else "BatchRequest")
        if route is POST_EVENTS:
            content |= {NDJSON_TYPE: {"schema": ref("EventRequest")}}
        for media_type, media in content.items():
            media["examples"] = _named(request_examples()[route.operation, media_type])
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[_Json]:
    parameters = []
    if "{event_id}" in route.path:
        parameters.append(
            _parameter(
                "path",
                "event_id",
                {"type": "string", "format": "uuid"},
                "The id that the event was accepted under.",
                EVENT_ID,
            )
        )
    if route is GET_EVENT:
        seconds = {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0}
        parameters.append(_parameter("query", "wait", seconds, "Seconds to wait for its end.", 0.5))
    if route in (POST_EVENT, POST_EVENTS):
        key = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS}
        parameters += [
            _parameter("header", "Prefer", {"type": "string"}, _PREFER, "respond-async"),
            _parameter("header", "Idempotency-Key", key, _KEY, "ticket-4711"),
        ]
    return parameters


def _parameter(place: str, name: str, schema: _Json, description: str, example: object) -> _Json:
    return {
        "in": place,
        "name": name,
        "description": description,
        "schema": schema,
        "required": place == "path",
        "example": example,
    }


def _responses(route: Route) -> _Json:
    """Return every answer of ``route``, by its status; one status may have two shapes."""
    answers = _answers(route)
    for (operation, status, media_type), examples in answer_examples().items():
        if operation == route.operation:
            answers[status]["content"][media_type]["examples"] = _named(examples)
    for status, error in _errors(route).items():
        answer = answers.get(status)
        if answer is None:
            answers[status] = error
            continue
        media, refused = answer["content"][JSON_TYPE], error["content"][JSON_TYPE]
        media["schema"] = {"oneOf": [media["schema"], refused["schema"]]}
        media["examples"] |= refused["examples"]
        answer["description"] += f" Or {error['description']}"
    return dict(sorted(answers.items()))


def _answers(route: Route) -> _Json:
    """Return the responses of ``route`` that are not errors."""
    not_now = {"headers": _RETRY_AFTER}
    if route is POST_EVENT:
        return {
            "200": {
                "description": "The completion; with `stream`, as events of StreamEvent.",
                "content": _json_of("Completion") | {_EVENT_STREAM: {"schema": ref("StreamFrame")}},
                "headers": _REPLAYED,
                "links": _links("/event_id"),
            },
            "202": {
                "description": "Accepted, as preferred; the outcome can be fetched later.",
                "content": _json_of("Accepted"),
                "headers": _LOCATION | _APPLIED | _REPLAYED,
                "links": _links("/event_id"),
            },
        }
    if route is POST_EVENTS:
        return {
            "200": {
                "description": "One answer for each event.",
                "content": _batch_answer(),
            },
            "202": {
                "description": "Accepted, as preferred, where the item says so.",
                "content": _batch_answer(),
                "headers": _APPLIED,
                "links": _links("/0/event_id"),
            },
        }
    if route is GET_HEALTH:
        return {
            "200": {"description": "Healthy or degraded.", "content": _json_of("Health")},
            "503": {"description": "Unhealthy.", "content": _json_of("Health"), **not_now},
        }
    if route is GET_READY:
        return {
            "200": {"description": "Ready.", "content": _json_of("Ready")},
            "503": {"description": "Not ready.", "content": _json_of("Ready"), **not_now},
        }
    if route in (GET_EVENT, DELETE_EVENT):
        return {"200": {"description": "How it stands.", "content": _json_of("EventStatus")}}
    description, name = {
        GET_LIVE: ("Alive.", "Live"),
        GET_OPENAPI: ("This description.", "Description"),
    }[route]
    return {"200": {"description": description, "content": _json_of(name)}}


def _batch_answer() -> _Json:
    return _json_of("BatchAnswer") | {NDJSON_TYPE: {"schema": ref("BatchItem")}}


def _links(pointer: str) -> _Json:
    """Return what may be done with the event whose id stands at ``pointer`` of the answer."""
    return {
        route.operation: {
            "operationId": route.operation,
            "description": route.summary,
            "parameters": {"event_id": f"$response.body#{pointer}"},
        }
        for route in (GET_EVENT, DELETE_EVENT)
    }


def _errors(route: Route) -> _Json:
    """Return one response for each status, naming the codes that have it."""
    by_status: dict[int, list[ErrorCode]] = {}
    for code in (*EVERYWHERE, *route.errors):
        by_status.setdefault(HTTP_STATUS[code], []).append(code)
    for status, code in BEFORE_ANY_ROUTE:
        codes = by_status.setdefault(status, [])
        if code not in codes:
            codes.append(code)
    return {str(status): _error(status, codes) for status, codes in by_status.items()}


def _error(status: int, codes: list[ErrorCode]) -> _Json:
    names = [code.value for code in codes]
    response: _Json = {
        "description": ", ".join(names),
        "content": {
            JSON_TYPE: {
                # Beside the reference, so that every error is of one class in a client.
                "schema": {**ref("Error"), "properties": {"error": {"enum": names}}},
                "examples": {name: {"$ref": f"#/components/examples/{name}"} for name in names},
            }
        },
    }
    if status in (401, 403):
        response["headers"] = _CHALLENGE
    if status in (429, 503):
        response["headers"] = _RETRY_AFTER
    return response


def _named(values: _Json) -> _Json:
    return {name: {"value": value} for name, value in values.items()}


def _json_of(name: str) -> _Json:
    return {JSON_TYPE: {"schema": ref(name)}}
