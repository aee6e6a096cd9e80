"""The routes there are: what serves each, and all that ``/openapi.json`` tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.config.values.tokens import Scope
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.server.handlers.batch import post_events
from ai_ticket_daemon.server.handlers.intake import post_event
from ai_ticket_daemon.server.handlers.lookup import delete_event, get_event
from ai_ticket_daemon.server.handlers.reports import get_health, get_live, get_openapi, get_ready
from ai_ticket_daemon.server.headers import (
    JSON_TYPE,
    MAX_KEY_CHARACTERS,
    MAX_WAIT_SECONDS,
    NDJSON_TYPE,
)
from ai_ticket_daemon.server.openapi import examples
from ai_ticket_daemon.server.routes import Answer, Body, Parameter, Route
from ai_ticket_daemon.server.shapes import Accepted, Completion, EventStatus, Health, Live, Ready

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.server.routes import Shape

_EVENT_STREAM = "text/event-stream"
_RETRY_AFTER: dict[str, Any] = {
    "Retry-After": {
        "description": "Seconds until it makes sense to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_APPLIED: dict[str, Any] = {
    "Preference-Applied": {
        "description": "The preferences that were honoured.",
        "schema": {"type": "string"},
    }
}
_LOCATION: dict[str, Any] = {
    "Location": {
        "description": "Where to look at the event.",
        "schema": {"type": "string", "format": "uri-reference"},
    }
}
_REPLAYED: dict[str, Any] = {
    "Idempotency-Replayed": {
        "description": "`true` where the key stood for an event that was there already.",
        "schema": {"type": "string", "const": "true"},
    }
}
_EVENT_ID = Parameter(
    "path",
    "event_id",
    {"type": "string", "format": "uuid"},
    "The id that the event was accepted under.",
    examples.EVENT_ID,
)
_WAIT = Parameter(
    "query",
    "wait",
    {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0},
    "Seconds to wait for its end.",
    0.5,
)
_OF_INTAKE = (
    Parameter(
        "header",
        "Prefer",
        {"type": "string"},
        "RFC 7240: `respond-async` and `wait=N` say how long to wait for the outcome.",
        "respond-async",
    ),
    Parameter(
        "header",
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS},
        "A name of the client's own; what is sent again under it is not done again.",
        "ticket-4711",
    ),
)

_BY_ACCESS_CONTROL = (ErrorCode.UNAUTHORISED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED)

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


def _json(shape: Shape, **named: object) -> dict[str, Body]:
    return {JSON_TYPE: Body(shape, named)}


def _ndjson(shape: Shape, **named: object) -> dict[str, Body]:
    return {NDJSON_TYPE: Body(shape, named)}


POST_EVENT = Route(
    path="/event",
    method="POST",
    operation="postEvent",
    summary=(
        "Hand over an event; wait for its completion, read it as it is made, or fetch it later."
    ),
    handler=post_event,
    body=_json(
        "EventRequest",
        ticket=examples.TICKET,
        conversation=examples.CONVERSATION,
        stream=examples.STREAMED,
    ),
    answers={
        200: Answer(
            "The completion; with `stream`, as events of StreamEvent.",
            _json(Completion, completion=examples.COMPLETION)
            | {_EVENT_STREAM: Body("StreamFrame", {"frames": examples.FRAMES})},
            _REPLAYED,
            event_id_at="/event_id",
        ),
        202: Answer(
            "Accepted, as preferred; the outcome can be fetched later.",
            _json(Accepted, queued=examples.ACCEPTED),
            _LOCATION | _APPLIED | _REPLAYED,
            event_id_at="/event_id",
        ),
    },
    parameters=_OF_INTAKE,
    errors=(
        *_BY_ACCESS_CONTROL,
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
    scopes=(Scope.SUBMIT,),
    is_traced=True,
)
GET_EVENT = Route(
    path="/event/{event_id}",
    method="GET",
    operation="getEvent",
    summary="Tell how an event stands, or wait for its end.",
    handler=get_event,
    answers={
        200: Answer(
            "How it stands.",
            _json(EventStatus, queued=examples.QUEUED, succeeded=examples.SUCCEEDED),
        )
    },
    parameters=(_EVENT_ID, _WAIT),
    errors=(
        *_BY_ACCESS_CONTROL,
        ErrorCode.EVENT_NOT_FOUND,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.HOST_EXHAUSTED,
        ErrorCode.STORE_UNAVAILABLE,
    ),
    scopes=(Scope.READ, Scope.OPERATE),
)
DELETE_EVENT = Route(
    path="/event/{event_id}",
    method="DELETE",
    operation="deleteEvent",
    summary="Cancel an event, whether it waits or runs.",
    handler=delete_event,
    answers={200: Answer("How it stands.", _json(EventStatus, cancelled=examples.CANCELLED))},
    parameters=(_EVENT_ID,),
    errors=(
        *_BY_ACCESS_CONTROL,
        ErrorCode.EVENT_NOT_FOUND,
        ErrorCode.HOST_EXHAUSTED,
        ErrorCode.STORE_UNAVAILABLE,
    ),
    scopes=(Scope.SUBMIT, Scope.OPERATE),
)
POST_EVENTS = Route(
    path="/events",
    method="POST",
    operation="postEvents",
    summary="Hand over many events at once; each is answered in its place, or as it completes.",
    handler=post_events,
    body=_json("BatchRequest", two=examples.BATCH)
    | _ndjson("EventRequest", two=examples.lines(examples.BATCH)),
    answers={
        200: Answer(
            "One answer for each event.",
            _json("BatchAnswer", ended=examples.BATCH_ENDED)
            | _ndjson("BatchItem", ended=examples.lines(examples.BATCH_ENDED)),
        ),
        202: Answer(
            "Accepted, as preferred, where the item says so.",
            _json("BatchAnswer", queued=examples.BATCH_ACCEPTED)
            | _ndjson("BatchItem", queued=examples.lines(examples.BATCH_ACCEPTED)),
            _APPLIED,
            event_id_at="/0/event_id",
        ),
    },
    parameters=_OF_INTAKE,
    errors=(*_BY_ACCESS_CONTROL, *_IN_A_BODY, *_AT_INTAKE, ErrorCode.BATCH_TOO_LARGE),
    scopes=(Scope.SUBMIT,),
    is_batch=True,
    is_traced=True,
)
GET_HEALTH = Route(
    path="/health",
    method="GET",
    operation="getHealth",
    summary="Tell how the daemon does, and why.",
    handler=get_health,
    answers={
        200: Answer("Healthy or degraded.", _json(Health, healthy=examples.HEALTHY)),
        503: Answer("Unhealthy.", _json(Health, unhealthy=examples.UNHEALTHY), _RETRY_AFTER),
    },
)
GET_LIVE = Route(
    path="/live",
    method="GET",
    operation="getLive",
    summary="Answer as long as the event loop turns.",
    handler=get_live,
    answers={200: Answer("Alive.", _json(Live, live={"live": True}))},
)
GET_READY = Route(
    path="/ready",
    method="GET",
    operation="getReady",
    summary="Tell whether an event sent now would be served.",
    handler=get_ready,
    answers={
        200: Answer("Ready.", _json(Ready, ready={"ready": True, "reasons": []})),
        503: Answer(
            "Not ready.",
            _json(Ready, down={"ready": False, "reasons": [examples.DOWN]}),
            _RETRY_AFTER,
        ),
    },
)
GET_OPENAPI = Route(
    path="/openapi.json",
    method="GET",
    operation="getOpenapi",
    summary="Describe this HTTP surface.",
    handler=get_openapi,
    answers={
        200: Answer(
            "This description.", _json("Description", start={"openapi": "3.1.0", "paths": {}})
        )
    },
)

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
