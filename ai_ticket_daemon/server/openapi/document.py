"""The OpenAPI description of the HTTP surface, made from the tables of routes and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.server.answers import to_json
from ai_ticket_daemon.server.headers import JSON_TYPE
from ai_ticket_daemon.server.openapi.examples import error_example
from ai_ticket_daemon.server.openapi.schemas import schemas, shape_ref
from ai_ticket_daemon.server.routes import BEFORE_ANY_ROUTE, EVERYWHERE
from ai_ticket_daemon.server.shapes import Error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_ticket_daemon.server.routes import Answer, Body, Parameter, Route

_Json = dict[str, Any]

_RETRY_AFTER: _Json = {
    "Retry-After": {
        "description": "Seconds until it makes sense to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_CHALLENGE: _Json = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}


def openapi_json(routes: Sequence[Route]) -> bytes:
    """Return the description of ``routes`` as it is served."""
    return to_json(openapi_document(routes))


def openapi_document(routes: Sequence[Route]) -> _Json:
    """Return the description of ``routes``."""
    about_events = [route for route in routes if "{event_id}" in route.path]
    paths: _Json = {}
    for route in routes:
        operation = _operation(route, about_events)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
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
            "schemas": schemas(routes),
            "examples": _named({code.value: error_example(code) for code in ErrorCode}),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(route: Route, about_events: Sequence[Route]) -> _Json:
    operation: _Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": _responses(route, about_events),
    }
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.scopes:
        scopes = [scope.value for scope in route.scopes]
        # Open where the daemon has no tokens file.
        operation["security"] = [{"bearer": scopes}, {"apiKey": scopes}, {}]
    if route.body:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    return operation


def _parameter(parameter: Parameter) -> _Json:
    return {
        "in": parameter.place,
        "name": parameter.name,
        "description": parameter.description,
        "schema": parameter.schema,
        "required": parameter.place == "path",
        "example": parameter.example,
    }


def _responses(route: Route, about_events: Sequence[Route]) -> _Json:
    """Return every answer of ``route``, by its status; one status may have two shapes."""
    answers = {
        str(status): _answer(answer, about_events) for status, answer in route.answers.items()
    }
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


def _answer(answer: Answer, about_events: Sequence[Route]) -> _Json:
    response: _Json = {"description": answer.description, "content": _content(answer.bodies)}
    if answer.headers:
        response["headers"] = answer.headers
    if answer.event_id_at is not None:
        response["links"] = _links(answer.event_id_at, about_events)
    return response


def _content(bodies: Mapping[str, Body]) -> _Json:
    return {
        media_type: {"schema": shape_ref(body.shape), "examples": _named(body.examples)}
        for media_type, body in bodies.items()
    }


def _links(pointer: str, about_events: Sequence[Route]) -> _Json:
    """Return what may be done with the event whose id stands at ``pointer`` of the answer."""
    return {
        route.operation: {
            "operationId": route.operation,
            "description": route.summary,
            "parameters": {"event_id": f"$response.body#{pointer}"},
        }
        for route in about_events
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
                "schema": {**shape_ref(Error), "properties": {"error": {"enum": names}}},
                "examples": {name: {"$ref": f"#/components/examples/{name}"} for name in names},
            }
        },
    }
    if status in (401, 403):
        response["headers"] = _CHALLENGE
    if status in (429, 503):
        response["headers"] = _RETRY_AFTER
    return response


def _named(values: Mapping[str, object]) -> _Json:
    return {name: {"value": value} for name, value in values.items()}
