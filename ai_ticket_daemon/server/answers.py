"""What goes back to the client: bodies, headers and stream frames, made by pure functions."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import asdict, replace

from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode, TicketError
from ai_ticket_daemon.events.outcome import Failed, Succeeded
from ai_ticket_daemon.events.reasoning import ReasoningText
from ai_ticket_daemon.server import shapes
from ai_ticket_daemon.server.shapes import (
    Accepted,
    Backend,
    Completion,
    Error,
    Health,
    StreamDelta,
    StreamError,
    StreamReasoning,
    Usage,
    stream_end,
)
from ai_ticket_daemon.tracecontext import kept_trace_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.status import EventStatus
    from ai_ticket_daemon.host.exhaustion import Resource
    from ai_ticket_daemon.status.snapshot import Snapshot

RETRY_AFTER_DEFAULT_SECONDS = 5
RETRY_AFTER_MAX_SECONDS = 86_400
HEARTBEAT = b": heartbeat\n\n"
BLANK_LINE = b"\n"
"""The heartbeat of NDJSON: whoever reads it skips blank lines."""

MOST_TRIED = 10
"""How many attempts an error tells of, the last ones."""

Warned = TypeVar("Warned", bound=Completion | Accepted)

_ENCODER = msgspec.json.Encoder()
_RETRY_STATUSES = frozenset({429, 503})


def to_json(value: object) -> bytes:
    """Return ``value`` as JSON in UTF-8; half a surrogate pair becomes a question mark."""
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def to_ndjson(values: Sequence[object]) -> bytes:
    """Return ``values`` as NDJSON: the JSON of each, and a line feed behind it."""
    try:
        return _ENCODER.encode_lines(values)
    except UnicodeEncodeError:
        return b"".join(to_json(value) + b"\n" for value in values)


def error_object(
    error: TicketError | Failed, *, event_id: str | None, trace_id: str | None
) -> Error:
    """Return the one shape that every error has."""
    details = error.details
    if isinstance(error, Failed) and error.attempts:
        details = {**(details or {}), "tried": [_tried(a) for a in error.attempts[-MOST_TRIED:]]}
    return Error(
        error=error.code,
        message=error.message,
        details=details,
        event_id=event_id,
        trace_id=trace_id,
    )


def _tried(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as the error of its event tells of it."""
    return {
        "backend": attempt.backend,
        "error": attempt.error,
        "seconds": round(attempt.seconds, 3),
        "behind": attempt.behind,
        **_decided(attempt),
    }


def _decided(attempt: Attempt) -> dict[str, Any]:
    """Return what an attempt had made, and what was decided when it had failed."""
    return {
        "tokens": attempt.tokens,
        "tokens_estimated": attempt.tokens_estimated,
        "retried": attempt.retried,
        "because": attempt.because,
    }


def error_headers(error: TicketError | Failed, status: int) -> dict[str, str]:
    """Return the headers that go with an error.

    When to come back, where that is known or due; and the methods that a route takes.
    """
    if error.code is ErrorCode.METHOD_NOT_ALLOWED and error.details:
        return {"allow": ", ".join(error.details["allowed"])}
    seconds = error.retry_after_seconds
    if seconds is None and status not in _RETRY_STATUSES:
        return {}
    return {"retry-after": str(retry_after(seconds))}


def retry_after(seconds: float | None) -> int:
    """Return ``seconds`` as the header wants it: whole, rounded up, at least 1."""
    if seconds is None or math.isnan(seconds):
        return RETRY_AFTER_DEFAULT_SECONDS
    return math.ceil(min(max(seconds, 1), RETRY_AFTER_MAX_SECONDS))


def status_of(outcome: Outcome) -> int:
    """Return the HTTP status that ``outcome`` is answered with."""
    return HTTP_STATUS[outcome.code] if isinstance(outcome, Failed) else 200


def completion_object(event: Event, outcome: Succeeded, event_id: str | None = None) -> Completion:
    """Return the answer to a client that waited; ``event_id`` where it is that of an earlier event.

    An idempotency key may have led to that.
    """
    usage = outcome.usage
    return Completion(
        completion=outcome.text,
        reasoning=UNSET if outcome.reasoning is None else outcome.reasoning,
        event_id=event_id or event.event_id,
        backend=outcome.backend,
        attempts=len(outcome.attempts),
        finish_reason=outcome.finish_reason,
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            estimated=usage.estimated,
            reasoning_tokens=UNSET if usage.reasoning_tokens is None else usage.reasoning_tokens,
        ),
        duration_seconds=round(outcome.duration_seconds, 3),
        metadata=event.metadata,
    )


def accepted_object(status: EventStatus) -> Accepted:
    """Return the answer to a client that does not wait any longer, or that sent a batch."""
    return Accepted(
        event_id=status.event.event_id,
        state=status.state,
        position=status.position,
        estimated_start=to_time(status.estimated_start_at, status.ahead),
        held=UNSET if status.held is None else status.held,
    )


def status_object(status: EventStatus) -> shapes.EventStatus:
    """Return the answer to a client that looks at an event."""
    event, outcome = status.event, status.outcome
    answer: Completion | Error | None = None
    if isinstance(outcome, Succeeded):
        answer = completion_object(event, outcome)
    elif outcome is not None:
        trace_id = kept_trace_id(event.trace_context)
        answer = error_object(outcome, event_id=event.event_id, trace_id=trace_id)
    return shapes.EventStatus(
        event_id=event.event_id,
        state=status.state,
        position=status.position,
        estimated_start=to_time(status.estimated_start_at, status.ahead),
        held=UNSET if status.held is None else status.held,
        submitted_at=to_time(event.submitted_at, status.ahead),
        deadline_at=to_time(event.deadline_at, status.ahead),
        attempts=[
            shapes.Attempt(
                backend=attempt.backend,
                started_at=to_time(attempt.started_at, status.ahead),
                ended_at=to_time(attempt.ended_at, status.ahead),
                error=attempt.error,
                message=attempt.message,
                counted=attempt.counted,
                **_decided(attempt),
            )
            for attempt in status.attempts
        ],
        outcome=answer,
    )


def to_time(seconds: float | None, ahead: float) -> str | None:
    """Return seconds since the Unix epoch as RFC 3339 has them, in UTC, to the millisecond.

    The calendar is ``ahead`` by so many seconds.
    """
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds + ahead, UTC).isoformat(timespec="milliseconds")
    return f"{text[:-6]}Z"


def delta_frame(delta: str) -> bytes:
    """Return one piece of a completion, or of the thinking before it, as a server-sent event."""
    if isinstance(delta, ReasoningText):
        return _frame(StreamReasoning(reasoning=str(delta), done=False))
    return _frame(StreamDelta(delta=delta, done=False))


def with_warnings(answer: Warned, warnings: Sequence[str]) -> Warned:
    """Return ``answer`` with what is likely to be a mistake in the request, if anything is."""
    return replace(answer, warnings=list(warnings)) if warnings else answer


def last_frame(
    event: Event, outcome: Outcome, trace_id: str, warnings: Sequence[str] = ()
) -> bytes:
    """Return the server-sent event that ends a stream."""
    if isinstance(outcome, Succeeded):
        return _frame(stream_end(with_warnings(completion_object(event, outcome), warnings)))
    error = error_object(outcome, event_id=event.event_id, trace_id=trace_id)
    return _frame(StreamError(**asdict(error), done=True))


def internal_error() -> TicketError:
    """Return what a client is told when it is our fault."""
    return TicketError(
        ErrorCode.INTERNAL_ERROR,
        "Something went wrong in the daemon; its log has the cause under this trace_id.",
    )


def host_exhausted(resource: Resource) -> TicketError:
    """Return what a client is told when the host has run out of ``resource``."""
    return TicketError(
        ErrorCode.HOST_EXHAUSTED,
        f"The host of the daemon is {resource.lack}; send the request again later.",
        details={"resource": resource.value},
    )


def health_object(snapshot: Snapshot) -> Health:
    """Return what ``/health`` tells."""
    return Health(
        status=snapshot.status,
        reasons=snapshot.reasons,
        ready=snapshot.ready,
        draining=snapshot.draining,
        version=snapshot.version,
        uptime_seconds=round(snapshot.uptime_seconds, 3),
        backends=[
            Backend(
                name=backend.name,
                role=backend.role,
                state=backend.state,
                active=backend.active,
                in_flight=backend.in_flight,
                version=backend.version,
                features=backend.features,
            )
            for backend in snapshot.backends
        ],
        queue=dict(snapshot.queue.states),
    )


def _frame(value: object) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
