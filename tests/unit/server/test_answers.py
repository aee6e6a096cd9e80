from __future__ import annotations

import json
import math

import pytest
from msgspec import to_builtins

from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.server.answers import (
    completion_object,
    delta_frame,
    error_headers,
    error_object,
    last_frame,
    retry_after,
    status_of,
    to_json,
)
from ai_ticket_daemon.testing.pipeline import succeeded

EVENT = Event("id", (Message(Role.USER, "a"),), Sampling(), 0.0, 1.0, metadata={"ticket": 17})


@pytest.mark.parametrize(
    ("seconds", "header"),
    [
        (None, 5),
        (0.0, 1),
        (-3.0, 1),
        (0.2, 1),
        (1.0, 1),
        (1.01, 2),
        (math.inf, 86_400),
        (-math.inf, 1),
        (math.nan, 5),
    ],
)
def test_retry_after_is_a_whole_number_of_seconds_from_one_up(
    seconds: float | None, header: int
) -> None:
    assert retry_after(seconds) == header


@pytest.mark.parametrize("code", list(ErrorCode))
def test_429_and_503_always_say_when_to_come_back(code: ErrorCode) -> None:
    status = HTTP_STATUS[code]
    headers = error_headers(RequestRefused(code, "Sentence."), status)
    assert ("retry-after" in headers) == (status in (429, 503))
    assert status_of(Failed(code, "Sentence.")) == status


def test_any_error_that_knows_when_to_come_back_says_so() -> None:
    error = RequestRefused(ErrorCode.DEADLINE_EXCEEDED, "Sentence.", retry_after_seconds=2.5)
    assert error_headers(error, 504) == {"retry-after": "3"}


def test_an_error_has_the_one_shape() -> None:
    error = RequestRefused(ErrorCode.QUEUE_FULL, "Sentence.", details={"a": 1})
    assert to_builtins(error_object(error, event_id=None, trace_id="t")) == {
        "error": "queue_full",
        "message": "Sentence.",
        "details": {"a": 1},
        "event_id": None,
        "trace_id": "t",
    }


def test_a_completion_says_where_it_comes_from_and_what_it_took() -> None:
    assert to_builtins(completion_object(EVENT, succeeded("text"))) == {
        "completion": "text",
        "event_id": "id",
        "backend": "primary",
        "attempts": 1,
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "estimated": False,
        },
        "duration_seconds": 0.5,
        "metadata": {"ticket": 17},
    }


def test_frames_are_one_line_of_json_each() -> None:
    frame = delta_frame("a\nb\r\u2028")
    assert frame.startswith(b"data: {")
    assert frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 2
    assert b"\r" not in frame
    assert json.loads(frame[6:]) == {"delta": "a\nb\r\u2028", "done": False}


def test_the_last_frame_of_a_failure_is_the_error_with_done() -> None:
    frame = last_frame(EVENT, Failed(ErrorCode.API_STALLED, "Sentence."), "t")
    assert json.loads(frame[6:]) == {
        "error": "api_stalled",
        "message": "Sentence.",
        "details": None,
        "event_id": "id",
        "trace_id": "t",
        "done": True,
    }


def test_half_a_surrogate_pair_from_a_backend_does_no_harm() -> None:
    assert to_json({"a": "x\ud800y ü"}) == '{"a":"x?y ü"}'.encode()
