"""The shapes of answers: what is written to a client, and what the description tells of it.

The order of the fields is that of the JSON. A field that may be left out is ``UNSET``. A union has
a name of its own in :mod:`.openapi.schemas`, since a Struct cannot hold one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ai_ticket_daemon.errors import ErrorCode  # noqa: TC001 - msgspec reads the annotations
from ai_ticket_daemon.events.state import EventState  # noqa: TC001
from ai_ticket_daemon.status.snapshot import HealthStatus  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msgspec.structs import FieldInfo


def ref(name: str) -> dict[str, Any]:
    """Return a reference to the shape of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _union(*members: dict[str, Any]) -> Meta:
    return Meta(extra_json_schema={"oneOf": list(members)})


Count = Annotated[int, Meta(ge=0)]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[str | None, Meta(extra_json_schema={"format": "date-time"})]
Details = Annotated[Any, Meta(extra_json_schema={"type": ["object", "null"]})]
FinishReason = Annotated[Any, Meta(extra_json_schema=ref("FinishReason"))]
Yes = Annotated[bool, Meta(extra_json_schema={"const": True})]
No = Annotated[bool, Meta(extra_json_schema={"const": False})]


class Usage(Struct, frozen=True, kw_only=True):
    """How many tokens were read and made."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool
    reasoning_tokens: int | UnsetType = UNSET


class Completion(Struct, frozen=True, kw_only=True):
    """What was made of an event."""

    completion: str
    reasoning: str | UnsetType = UNSET
    event_id: Id
    backend: str
    attempts: int
    finish_reason: FinishReason
    usage: Usage
    duration_seconds: float
    metadata: Details
    warnings: list[str] | UnsetType = UNSET


class StreamDelta(Struct, frozen=True, kw_only=True):
    """A piece of a completion."""

    delta: str
    done: No


class StreamReasoning(Struct, frozen=True, kw_only=True):
    """A piece of what the model thinks before it answers, for a client that wants it."""

    reasoning: str
    done: No


class Error(Struct, frozen=True, kw_only=True):
    """Why there is no completion: the one shape of every error."""

    error: ErrorCode
    message: str
    details: Details
    event_id: str | None
    trace_id: str | None


class StreamError(Error, frozen=True, kw_only=True):
    """The end of a stream whose event failed."""

    done: Yes


class _Standing(Struct, frozen=True, kw_only=True):
    event_id: Id
    state: EventState
    position: Annotated[int, Meta(ge=1)] | None
    estimated_start: Time
    held: str | UnsetType = UNSET


class Accepted(_Standing, frozen=True, kw_only=True):
    """Where an event stands whose client does not wait."""

    warnings: list[str] | UnsetType = UNSET


class Attempt(Struct, frozen=True, kw_only=True):
    """One try of an event at one backend."""

    backend: str
    started_at: Time
    ended_at: Time
    error: str | None
    message: str | None
    counted: bool
    tokens: Count | None
    tokens_estimated: bool
    retried: bool | None
    because: str | None


class EventStatus(_Standing, frozen=True, kw_only=True):
    """How an event stands."""

    submitted_at: Time
    deadline_at: Time
    attempts: list[Attempt]
    outcome: Annotated[Any, _union(ref("Completion"), ref("Error"), {"type": "null"})]


class Backend(Struct, frozen=True, kw_only=True):
    """One backend in the eyes of the daemon."""

    name: str
    role: str
    state: str
    active: bool
    in_flight: Count
    version: str | None
    features: tuple[str, ...]


class Health(Struct, frozen=True, kw_only=True):
    """How the daemon does, and why."""

    status: HealthStatus
    reasons: tuple[str, ...]
    ready: bool
    draining: bool
    version: str
    uptime_seconds: float
    backends: list[Backend]
    queue: Annotated[dict[str, int], Meta(extra_json_schema=ref("Queue"))]


class Ready(Struct, frozen=True, kw_only=True):
    """Whether an event sent now would be served."""

    ready: bool
    reasons: tuple[str, ...]


class Live(Struct, frozen=True, kw_only=True):
    """The event loop turns."""

    live: Yes


def _behind(name: str, first: list[tuple[str, Any]], rest: Iterable[FieldInfo]) -> type[Struct]:
    """Return the shape that has the fields ``first`` and behind them those of another one."""
    fields = [(field.name, field.type, field.default) for field in rest]
    return msgspec.defstruct(name, [*first, *fields], frozen=True, kw_only=True)


_IN_PIECES = frozenset({"completion", "reasoning"})
StreamEnd = _behind(
    "StreamEnd",
    [("delta", str), ("done", Yes)],
    [field for field in msgspec.structs.fields(Completion) if field.name not in _IN_PIECES],
)
_IN_BATCH = {
    shape: _behind(
        f"Batch{shape.__name__}", [("index", Count), ("status", int)], msgspec.structs.fields(shape)
    )
    for shape in (Completion, Accepted, Error)
}
BATCH_ITEMS = tuple(_IN_BATCH.values())


def stream_end(completion: Completion) -> Struct:
    """Return the end of a stream whose pieces were the text of ``completion``."""
    fields = msgspec.structs.asdict(completion).items()
    rest = {name: value for name, value in fields if name not in _IN_PIECES}
    return StreamEnd(delta="", done=True, **rest)


def in_batch(index: int, status: int, answer: Completion | Accepted | Error) -> Struct:
    """Return ``answer`` as that to item ``index`` of a batch."""
    shape = _IN_BATCH[type(answer)]
    return shape(index=index, status=status, **msgspec.structs.asdict(answer))
