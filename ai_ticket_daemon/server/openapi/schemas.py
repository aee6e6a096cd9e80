"""The shapes of bodies in the OpenAPI description: what is sent, and what comes back.

What comes back are the Structs of :mod:`..shapes`, described by msgspec. What is sent is held
against the limits of an event by hand, to tell precisely what is wrong with it.

Each shape has a name, also within another one: what makes a client out of the description takes the
names of its classes from there, and leaves out a union whose members have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Role
from ai_ticket_daemon.events.limits import (
    MAX_METADATA_BYTES,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    PRIORITY,
    RANGES,
)
from ai_ticket_daemon.events.reasoning import Reasoning, ReasoningEffort
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.server.shapes import (
    BATCH_ITEMS,
    Completion,
    Error,
    StreamDelta,
    StreamEnd,
    StreamError,
    StreamReasoning,
    ref,
)
from ai_ticket_daemon.status.snapshot import HealthStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from enum import StrEnum

    from msgspec import Struct

    from ai_ticket_daemon.server.routes import Route, Shape

_ENUMERATIONS: tuple[type[StrEnum], ...] = (Role, ErrorCode, EventState, HealthStatus)
STREAM_EVENTS: tuple[type[Struct], ...] = (StreamDelta, StreamEnd, StreamError, StreamReasoning)
_Json = dict[str, Any]


_TEXT: _Json = {"type": "string"}


def schemas(routes: Sequence[Route]) -> _Json:
    """Return all shapes by their names: those of the answers of ``routes``, and what they use."""
    found = _requests() | _unions() | _structs(routes)
    return {name: {"title": name, **found[name]} for name in sorted(found)}


def shape_ref(shape: Shape) -> _Json:
    """Return a reference to ``shape``."""
    return ref(shape if isinstance(shape, str) else shape.__name__)


def _structs(routes: Sequence[Route]) -> _Json:
    """Return what the Structs say that are written to clients."""
    found: set[type[Struct]] = {Completion, Error, *STREAM_EVENTS}
    found.update(BATCH_ITEMS)
    for route in routes:
        bodies = [body for answer in route.answers.values() for body in answer.bodies.values()]
        found.update(body.shape for body in bodies if not isinstance(body.shape, str))
    ordered = sorted(found, key=lambda shape: shape.__name__)
    template = ref("{name}")["$ref"]
    _, components = msgspec.json.schema_components(ordered, ref_template=template)
    # msgspec sorts the values of an enumeration, and leaves out their type.
    return components | {kind.__name__: _enumeration(kind) for kind in _ENUMERATIONS}


def _enumeration(of: type[StrEnum]) -> _Json:
    return {"type": "string", "enum": [member.value for member in of]}


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
            reasoning={**_enumeration(Reasoning), "default": Reasoning.DROP.value},
            reasoning_effort=_enumeration(ReasoningEffort),
        ),
        "BatchRequest": _list_of("EventRequest", minItems=1),
    }


def _unions() -> _Json:
    """Return the shapes that are no Structs: unions, lists, and the text of a stream."""
    frame = {"contentMediaType": "application/json", "contentSchema": ref("StreamEvent")}
    return {
        "FinishReason": {"type": "string", "enum": ["stop", "length"]},
        "StreamFrame": {
            **_object(["data"], data=_TEXT | frame),
            "description": "One server-sent event of a stream.",
        },
        "StreamEvent": {
            "description": "What a frame of a stream holds as its data.",
            "oneOf": [shape_ref(shape) for shape in STREAM_EVENTS],
        },
        "BatchItem": {"oneOf": [shape_ref(shape) for shape in BATCH_ITEMS]},
        "BatchAnswer": _list_of("BatchItem"),
        "Queue": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        "Description": _object(["openapi", "paths"], openapi=_TEXT, paths={"type": "object"}),
    }
