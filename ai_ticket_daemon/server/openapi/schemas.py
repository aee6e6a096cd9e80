"""The shapes of bodies in the OpenAPI description: what is sent, and what comes back.

Each has a name, also within another one: what makes a client out of the description takes the names
of its classes from there, and leaves out a union whose members have none.
"""

from __future__ import annotations

from typing import Any

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Role
from ai_ticket_daemon.events.limits import (
    MAX_METADATA_BYTES,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    PRIORITY,
    RANGES,
)
from ai_ticket_daemon.events.state import EventState

_Json = dict[str, Any]


_TEXT: _Json = {"type": "string"}
_WHOLE: _Json = {"type": "integer"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_FLAG: _Json = {"type": "boolean"}
_MAYBE_TEXT: _Json = {"type": ["string", "null"]}
_TIME: _Json = {"type": ["string", "null"], "format": "date-time"}
_ANYTHING: _Json = {"type": ["object", "null"]}


def schemas() -> _Json:
    """Return all shapes by their names."""
    found = _requests() | _completions() | _errors() | _states() | _batches() | _reports()
    return {name: {"title": name, **schema} for name, schema in found.items()}


def ref(name: str) -> _Json:
    """Return a reference to the shape of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], **properties: _Json) -> _Json:
    return {"type": "object", "required": required, "properties": properties}


def _list_of(name: str, **bounds: int) -> _Json:
    return {"type": "array", "items": ref(name), **bounds}


def _requests() -> _Json:
    stop: _Json = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
    numbers = {name: allowed.schema() for name, allowed in RANGES.items()}
    numbers["priority"] |= {"default": PRIORITY.default}
    prompts = [_TEXT, ref("Conversation"), ref("PlainPrompt")]
    return {
        "Role": {"type": "string", "enum": [role.value for role in Role]},
        "TextPart": _object(["type", "text"], type={"const": "text"}, text=_TEXT),
        "Message": _object(
            ["role", "content"],
            role=ref("Role"),
            content={"oneOf": [_TEXT, _list_of("TextPart")]},
        ),
        "Conversation": _object(["messages"], messages=_list_of("Message", minItems=1)),
        "PlainPrompt": _object(["prompt"], prompt=_TEXT),
        "Prompt": {"oneOf": prompts},
        "EventRequest": _object(
            ["content"],
            content={"oneOf": [*prompts, _list_of("Prompt", minItems=1)]},
            stop={
                "oneOf": [stop, {"type": "array", "maxItems": MAX_STOP_STRINGS, "items": stop}],
                "description": f"At most {MAX_STOP_CHARACTERS} characters together.",
            },
            **numbers,
            metadata={"type": "object", "description": f"At most {MAX_METADATA_BYTES} bytes."},
            stream={"type": "boolean", "default": False},
        ),
        "BatchRequest": _list_of("EventRequest", minItems=1),
    }


def _completions() -> _Json:
    result = {
        "event_id": {"type": "string", "format": "uuid"},
        "backend": _TEXT,
        "attempts": _WHOLE,
        "finish_reason": ref("FinishReason"),
        "usage": ref("Usage"),
        "duration_seconds": {"type": "number"},
        "metadata": _ANYTHING,
    }
    last: _Json = {"const": True}
    frame = {"contentSchema": ref("StreamEvent")}
    return {
        "FinishReason": {"type": "string", "enum": ["stop", "length"]},
        "Usage": _object(
            ["prompt_tokens", "completion_tokens", "total_tokens", "estimated"],
            prompt_tokens=_WHOLE,
            completion_tokens=_WHOLE,
            total_tokens=_WHOLE,
            estimated=_FLAG,
        ),
        "Warnings": {"type": "array", "items": _TEXT},
        "Completion": _object(
            ["completion", *result], completion=_TEXT, **result, warnings=ref("Warnings")
        ),
        "StreamDelta": _object(["delta", "done"], delta=_TEXT, done={"const": False}),
        "StreamEnd": _object(
            ["delta", "done", *result], delta=_TEXT, done=last, **result, warnings=ref("Warnings")
        ),
        "StreamError": _error(done=last),
        "StreamFrame": {
            **_object(["data"], data=_TEXT | {"contentMediaType": "application/json"} | frame),
            "description": "One server-sent event of a stream.",
        },
        "StreamEvent": {
            "description": "What a frame of a stream holds as its data.",
            "oneOf": [ref("StreamDelta"), ref("StreamEnd"), ref("StreamError")],
        },
    }


def _errors() -> _Json:
    return {
        "ErrorCode": {"type": "string", "enum": [code.value for code in ErrorCode]},
        "Error": _error(),
    }


def _error(**more: _Json) -> _Json:
    fields = {
        "error": ref("ErrorCode"),
        "message": _TEXT,
        "details": _ANYTHING,
        "event_id": _MAYBE_TEXT,
        "trace_id": _MAYBE_TEXT,
    }
    return _object([*more, *fields], **more, **fields)


def _states() -> _Json:
    accepted: _Json = {
        "event_id": {"type": "string", "format": "uuid"},
        "state": ref("EventState"),
        "position": {"type": ["integer", "null"], "minimum": 1},
        "estimated_start": _TIME,
    }
    attempt: _Json = {
        "backend": _TEXT,
        "started_at": _TIME,
        "ended_at": _TIME,
        "error": _MAYBE_TEXT,
        "message": _MAYBE_TEXT,
        "counted": _FLAG,
        "tokens": {"type": ["integer", "null"], "minimum": 0},
        "tokens_estimated": _FLAG,
        "retried": {"type": ["boolean", "null"]},
        "because": _MAYBE_TEXT,
    }
    return {
        "EventState": {"type": "string", "enum": [state.value for state in EventState]},
        "Accepted": _object([*accepted], **accepted, held=_TEXT, warnings=ref("Warnings")),
        "Attempt": _object([*attempt], **attempt),
        "EventStatus": _object(
            [*accepted, "submitted_at", "deadline_at", "attempts", "outcome"],
            **accepted,
            held=_TEXT,
            submitted_at=_TIME,
            deadline_at=_TIME,
            attempts=_list_of("Attempt"),
            outcome={"oneOf": [ref("Completion"), ref("Error"), {"type": "null"}]},
        ),
    }


def _batches() -> _Json:
    answers = ("Completion", "Accepted", "Error")
    return {
        "InBatch": _object(["index", "status"], index=_COUNT, status=_WHOLE),
        **{f"Batch{name}": {"allOf": [ref("InBatch"), ref(name)]} for name in answers},
        "BatchItem": {"oneOf": [ref(f"Batch{name}") for name in answers]},
        "BatchAnswer": _list_of("BatchItem"),
    }


def _reports() -> _Json:
    reasons: _Json = {"type": "array", "items": _TEXT}
    health: _Json = {
        "status": ref("HealthStatus"),
        "reasons": reasons,
        "ready": _FLAG,
        "draining": _FLAG,
        "version": _TEXT,
        "uptime_seconds": {"type": "number"},
        "backends": _list_of("Backend"),
        "queue": ref("Queue"),
    }
    backend: _Json = {
        "name": _TEXT,
        "role": _TEXT,
        "state": _TEXT,
        "active": _FLAG,
        "in_flight": _COUNT,
    }
    return {
        "HealthStatus": {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]},
        "Backend": _object([*backend], **backend),
        "Queue": {"type": "object", "additionalProperties": _COUNT},
        "Health": _object([*health], **health),
        "Ready": _object(["ready", "reasons"], ready=_FLAG, reasons=reasons),
        "Live": _object(["live"], live={"const": True}),
        "Description": _object(["openapi", "paths"], openapi=_TEXT, paths={"type": "object"}),
    }
