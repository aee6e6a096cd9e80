"""Examples in the OpenAPI description: for each route what is sent and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.server.answers import to_json
from ai_ticket_daemon.server.routes import (
    DELETE_EVENT,
    GET_EVENT,
    GET_HEALTH,
    GET_LIVE,
    GET_OPENAPI,
    GET_READY,
    POST_EVENT,
    POST_EVENTS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_Json = dict[str, Any]

EVENT_ID = "019aa0c2-6f1b-7d3e-9c41-5b0f2a7e8d10"

_TICKET: _Json = {"content": "Summarise: the printer on floor 3 is on fire.", "max_tokens": 32}
_CONVERSATION: _Json = {
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
_STREAMED: _Json = {"content": "Count to three.", "stream": True, "max_tokens": 16}
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
_COMPLETION: _Json = {"completion": "Printer on floor 3 is burning.", **_RESULT}
_ACCEPTED: _Json = {
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


def request_examples() -> Mapping[tuple[str, str], _Json]:
    """Return values by operation and media type, by their names."""
    return {
        (POST_EVENT.operation, "application/json"): {
            "ticket": _TICKET,
            "conversation": _CONVERSATION,
            "stream": _STREAMED,
        },
        (POST_EVENTS.operation, "application/json"): {"two": [_TICKET, _CONVERSATION]},
        (POST_EVENTS.operation, "application/x-ndjson"): {
            "two": _lines(_TICKET, _CONVERSATION),
        },
    }


def answer_examples() -> Mapping[tuple[str, str, str], _Json]:
    """Return values by operation, status and media type, by their names."""
    in_batch = [
        {"index": 0, "status": 200, **_COMPLETION},
        {
            "index": 1,
            "status": HTTP_STATUS[ErrorCode.INVALID_INPUT_FORMAT],
            **error_example(ErrorCode.INVALID_INPUT_FORMAT),
        },
    ]
    accepted = [{"index": 0, "status": 202, **_ACCEPTED}]
    ended = _status(EventState.SUCCEEDED, [_ATTEMPT], _COMPLETION)
    cancelled = {**error_example(ErrorCode.CANCELLED), "event_id": EVENT_ID}
    down = "no backend is usable"
    frames = [
        {"delta": "One,", "done": False},
        {"delta": " two, three.", "done": False},
        {"delta": "", "done": True, **_RESULT},
    ]
    json, ndjson = "application/json", "application/x-ndjson"
    return {
        (POST_EVENT.operation, "200", json): {"completion": _COMPLETION},
        (POST_EVENT.operation, "200", "text/event-stream"): {
            "frames": ": heartbeat\n\n" + "".join(f"data: {_text(frame)}\n\n" for frame in frames)
        },
        (POST_EVENT.operation, "202", json): {"queued": _ACCEPTED},
        (POST_EVENTS.operation, "200", json): {"ended": in_batch},
        (POST_EVENTS.operation, "200", ndjson): {"ended": _lines(*in_batch)},
        (POST_EVENTS.operation, "202", json): {"queued": accepted},
        (POST_EVENTS.operation, "202", ndjson): {"queued": _lines(*accepted)},
        (GET_EVENT.operation, "200", json): {
            "queued": _status(EventState.QUEUED, [], None),
            "succeeded": ended,
        },
        (DELETE_EVENT.operation, "200", json): {
            "cancelled": _status(EventState.CANCELLED, [], cancelled)
        },
        (GET_HEALTH.operation, "200", json): {"healthy": _health("healthy", [], "ready")},
        (GET_HEALTH.operation, "503", json): {"unhealthy": _health("unhealthy", [down], "down")},
        (GET_READY.operation, "200", json): {"ready": {"ready": True, "reasons": []}},
        (GET_READY.operation, "503", json): {"down": {"ready": False, "reasons": [down]}},
        (GET_LIVE.operation, "200", json): {"live": {"live": True}},
        (GET_OPENAPI.operation, "200", json): {"start": {"openapi": "3.1.0", "paths": {}}},
    }


def _status(state: EventState, attempts: list[_Json], outcome: _Json | None) -> _Json:
    waits = state is EventState.QUEUED
    return {
        **_ACCEPTED,
        "state": state.value,
        "position": 1 if waits else None,
        "estimated_start": _ACCEPTED["estimated_start"] if waits else None,
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
        "backends": [{**server, "in_flight": 1 if usable else 0}],
        "queue": {state.value: 0 for state in EventState},
    }


def _text(value: object) -> str:
    return to_json(value).decode()


def _lines(*values: object) -> str:
    return "".join(f"{_text(value)}\n" for value in values)
