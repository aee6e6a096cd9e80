"""The shapes of bodies in the OpenAPI description: what is sent, and what comes back."""

from __future__ import annotations

from typing import Any

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import PRIORITY_DEFAULT, PRIORITY_FIRST, PRIORITY_LAST, Role
from ai_ticket_daemon.events.parse import (
    MAX_METADATA_BYTES,
    MAX_SEED,
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE,
    MAX_TIMEOUT_SECONDS,
)
from ai_ticket_daemon.events.state import EventState

_Json = dict[str, Any]


def _object(required: list[str], **properties: _Json) -> _Json:
    return {"type": "object", "required": required, "properties": properties}


def schemas() -> _Json:
    """Return all shapes by their names."""
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
    warnings = {"type": "array", "items": text}
    backend = _object(
        ["name", "role", "state", "active", "in_flight"],
        name=text,
        role=text,
        state=text,
        active=flag,
        in_flight=whole,
    )
    time: _Json = {"type": ["string", "null"], "format": "date-time"}
    accepted: _Json = {
        "event_id": {"type": "string", "format": "uuid"},
        "state": {"enum": [state.value for state in EventState]},
        "position": {"type": ["integer", "null"], "minimum": 1},
        "estimated_start": time,
    }
    maybe: _Json = {"type": ["string", "null"]}
    attempt = _object(
        [
            "backend", "started_at", "ended_at", "error", "message", "counted", "tokens",
            "tokens_estimated", "retried", "because",
        ],
        backend=text,
        started_at=time,
        ended_at=time,
        error=maybe,
        message=maybe,
        counted=flag,
        tokens={"type": ["integer", "null"], "minimum": 0},
        tokens_estimated=flag,
        retried={"type": ["boolean", "null"]},
        because=maybe,
    )  # fmt: skip
    outcome = {
        "oneOf": [
            {"$ref": "#/components/schemas/Completion"},
            {"$ref": "#/components/schemas/Error"},
            {"type": "null"},
        ]
    }
    in_batch = _object(["index", "status"], index={"type": "integer", "minimum": 0}, status=whole)
    answers = [
        {"$ref": f"#/components/schemas/{name}"} for name in ("Completion", "Accepted", "Error")
    ]
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
        "Completion": _object(
            ["completion", *result], completion=text, **result, warnings=warnings
        ),
        "Accepted": _object([*accepted], **accepted, held=text, warnings=warnings),
        "EventStatus": _object(
            [*accepted, "submitted_at", "deadline_at", "attempts", "outcome"],
            **accepted,
            held=text,
            submitted_at=time,
            deadline_at=time,
            attempts={"type": "array", "items": attempt},
            outcome=outcome,
        ),
        "BatchRequest": {
            "type": "array",
            "minItems": 1,
            "items": {"$ref": "#/components/schemas/EventRequest"},
        },
        "BatchItem": {"allOf": [in_batch, {"oneOf": answers}]},
        "BatchAnswer": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/BatchItem"},
        },
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
