"""Examples in the OpenAPI description: what is sent and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.server.answers import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

_Json = dict[str, Any]

EVENT_ID = "019aa0c2-6f1b-7d3e-9c41-5b0f2a7e8d10"

TICKET: _Json = {"content": "Summarise: the printer on floor 3 is on fire.", "max_tokens": 32}
CONVERSATION: _Json = {
    "content": {
        "messages": [
            {"role": "system", "content": "Answer with one word."},
            {"role": "user", "content": "Is a burning printer urgent?"},
        ]
    },
    "max_tokens": 8,
    "temperature": 0,
    "metadata": {"ticket": 4711},
}
STREAMED: _Json = {"content": "Count to three.", "stream": True, "max_tokens": 16}
_RESULT: _Json = {
    "event_id": EVENT_ID,
    "backend": "primary",
    "attempts": 1,
    "finish_reason": "stop",
    "usage": {
        "prompt_tokens": 14,
        "completion_tokens": 8,
        "total_tokens": 22,
        "estimated": False,
    },
    "duration_seconds": 0.412,
    "metadata": None,
}
COMPLETION: _Json = {"completion": "Printer on floor 3 is burning.", **_RESULT}
ACCEPTED: _Json = {
    "event_id": EVENT_ID,
    "state": EventState.QUEUED.value,
    "position": 1,
    "estimated_start": "2026-11-25T18:40:00.250Z",
}
_ATTEMPT: _Json = {
    "backend": "primary",
    "started_at": "2026-11-25T18:40:00.003Z",
    "ended_at": "2026-11-25T18:40:00.415Z",
    "error": None,
    "message": None,
    "counted": True,
    "tokens": 8,
    "tokens_estimated": False,
    "retried": None,
    "because": None,
}


def error_example(code: ErrorCode) -> _Json:
    """Return what a client is told that meets ``code``."""
    return {
        "error": code.value,
        "message": "What went wrong, and what to do about it.",
        "details": None,
        "event_id": None,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


def lines(values: Sequence[object]) -> str:
    """Return ``values`` as NDJSON."""
    return "".join(f"{_text(value)}\n" for value in values)


def _status(state: EventState, attempts: list[_Json], outcome: _Json | None) -> _Json:
    waits = state is EventState.QUEUED
    return {
        **ACCEPTED,
        "state": state.value,
        "position": 1 if waits else None,
        "estimated_start": ACCEPTED["estimated_start"] if waits else None,
        "submitted_at": "2026-11-25T18:40:00.000Z",
        "deadline_at": "2026-11-25T18:45:00.000Z",
        "attempts": attempts,
        "outcome": outcome,
    }


def _health(status: str, reasons: list[str], state: str) -> _Json:
    usable = not reasons
    server = {"name": "primary", "role": "primary", "state": state, "active": usable}
    return {
        "status": status,
        "reasons": reasons,
        "ready": usable,
        "draining": False,
        "version": __version__,
        "uptime_seconds": 86400.123,
        "backends": [
            {
                **server,
                "in_flight": 1 if usable else 0,
                "version": "1.115.1" if usable else None,
                "features": ["counts_messages", "true_usage"] if usable else [],
            }
        ],
        "queue": {state.value: 0 for state in EventState},
    }


def _text(value: object) -> str:
    return to_json(value).decode()


BATCH = [TICKET, CONVERSATION]
BATCH_ENDED: list[_Json] = [
    {"index": 0, "status": 200, **COMPLETION},
    {
        "index": 1,
        "status": HTTP_STATUS[ErrorCode.INVALID_INPUT_FORMAT],
        **error_example(ErrorCode.INVALID_INPUT_FORMAT),
    },
]
BATCH_ACCEPTED: list[_Json] = [{"index": 0, "status": 202, **ACCEPTED}]
FRAMES = ": heartbeat\n\n" + "".join(
    f"data: {_text(frame)}\n\n"
    for frame in (
        {"delta": "One,", "done": False},
        {"delta": " two, three.", "done": False},
        {"delta": "", "done": True, **_RESULT},
    )
)
QUEUED = _status(EventState.QUEUED, [], None)
SUCCEEDED = _status(EventState.SUCCEEDED, [_ATTEMPT], COMPLETION)
CANCELLED = _status(
    EventState.CANCELLED, [], {**error_example(ErrorCode.CANCELLED), "event_id": EVENT_ID}
)
DOWN = "no backend is usable"
HEALTHY = _health("healthy", [], "ready")
UNHEALTHY = _health("unhealthy", [DOWN], "down")
