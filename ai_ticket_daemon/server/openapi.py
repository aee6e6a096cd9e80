"""The OpenAPI description of the HTTP surface, made from the tables of routes and codes."""

from __future__ import annotations

from typing import Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.events.event import PRIORITY_DEFAULT, PRIORITY_FIRST, PRIORITY_LAST, Role
from ai_ticket_daemon.events.parse import (
    MAX_METADATA_BYTES,
    MAX_SEED,
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE,
    MAX_TIMEOUT_SECONDS,
)
from ai_ticket_daemon.server.answers import JSON_TYPE, to_json
from ai_ticket_daemon.server.routes import (
    EVERYWHERE,
    GET_HEALTH,
    GET_LIVE,
    GET_OPENAPI,
    GET_READY,
    POST_EVENT,
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
        "components": {"schemas": _schemas()},
    }


def _operation(route: Route) -> _Json:
    operation: _Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": _answers(route) | _errors((*EVERYWHERE, *route.errors)),
    }
    if route is POST_EVENT:
        operation["requestBody"] = {"required": True, "content": _json_of("EventRequest")}
    return operation


def _answers(route: Route) -> _Json:
    """Return the responses of ``route`` that are not errors."""
    not_now = {"headers": _RETRY_AFTER}
    if route is POST_EVENT:
        stream = {"text/event-stream": {"schema": {"type": "string"}}}
        return {
            "200": {
                "description": "The completion; with `stream`, as events of StreamEvent.",
                "content": _json_of("Completion") | stream,
            }
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
        if status in (429, 503):
            response["headers"] = _RETRY_AFTER
        responses[str(status)] = response
    return responses


def _json_of(name: str) -> _Json:
    return {JSON_TYPE: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _object(required: list[str], **properties: _Json) -> _Json:
    return {"type": "object", "required": required, "properties": properties}


def _schemas() -> _Json:
    text: _Json = {"type": "string"}
    whole: _Json = {"type": "integer"}
    flag: _Json = {"type": "boolean"}
    anything: _Json = {"type": ["object", "null"]}
    part = _object(["type", "text"], type={"const": "text"}, text=text)
    message = _object(
        ["role", "content"],
        role={"enum": [role.value for role in Role]},
        content={"oneOf": [text, {"type": "array", "items": part}]},
    )
    prompt: _Json = {
        "oneOf": [
            text,
            _object(["messages"], messages={"type": "array", "minItems": 1, "items": message}),
            _object(["prompt"], prompt=text),
        ]
    }
    reference = {"$ref": "#/components/schemas/Prompt"}
    usage = _object(
        ["prompt_tokens", "completion_tokens", "total_tokens", "estimated"],
        prompt_tokens=whole,
        completion_tokens=whole,
        total_tokens=whole,
        estimated=flag,
    )
    result = {
        "event_id": {"type": "string", "format": "uuid"},
        "backend": text,
        "attempts": whole,
        "finish_reason": {"enum": ["stop", "length"]},
        "usage": usage,
        "duration_seconds": {"type": "number"},
        "metadata": anything,
    }
    backend = _object(
        ["name", "role", "state", "active", "in_flight"],
        name=text,
        role=text,
        state=text,
        active=flag,
        in_flight=whole,
    )
    reasons = {"type": "array", "items": text}
    return {
        "Prompt": prompt,
        "EventRequest": _object(
            ["content"],
            content={"oneOf": [*prompt["oneOf"], {"type": "array", "items": reference}]},
            max_tokens={"type": "integer", "minimum": 1},
            temperature={"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE},
            top_p={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            stop={
                "oneOf": [
                    {"type": "string", "minLength": 1},
                    {
                        "type": "array",
                        "maxItems": MAX_STOP_STRINGS,
                        "items": {"type": "string", "minLength": 1},
                    },
                ]
            },
            seed={"type": "integer", "minimum": -1, "maximum": MAX_SEED},
            priority={
                "type": "integer",
                "minimum": PRIORITY_FIRST,
                "maximum": PRIORITY_LAST,
                "default": PRIORITY_DEFAULT,
            },
            timeout_seconds={
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": MAX_TIMEOUT_SECONDS,
            },
            metadata={"type": "object", "description": f"At most {MAX_METADATA_BYTES} bytes."},
            stream={"type": "boolean", "default": False},
        ),
        "Completion": _object(["completion", *result], completion=text, **result),
        "StreamEvent": {
            "oneOf": [
                _object(["delta", "done"], delta=text, done={"const": False}),
                _object(["delta", "done", *result], delta=text, done={"const": True}, **result),
                {
                    "allOf": [
                        {"$ref": "#/components/schemas/Error"},
                        _object(["done"], done={"const": True}),
                    ]
                },
            ]
        },
        "Error": _object(
            ["error", "message", "details", "event_id", "trace_id"],
            error={"enum": [code.value for code in ErrorCode]},
            message=text,
            details=anything,
            event_id={"type": ["string", "null"]},
            trace_id={"type": ["string", "null"]},
        ),
        "Health": _object(
            [
                "status",
                "reasons",
                "ready",
                "draining",
                "version",
                "uptime_seconds",
                "backends",
                "queue",
            ],
            status={"enum": ["healthy", "degraded", "unhealthy"]},
            reasons=reasons,
            ready=flag,
            draining=flag,
            version=text,
            uptime_seconds={"type": "number"},
            backends={"type": "array", "items": backend},
            queue={"type": "object", "additionalProperties": whole},
        ),
        "Ready": _object(["ready", "reasons"], ready=flag, reasons=reasons),
    }
