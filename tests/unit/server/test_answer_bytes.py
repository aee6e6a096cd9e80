"""The bytes of answers, as clients know them: which fields, in which order, null or left out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Attempt, Failed, Usage
from ai_ticket_daemon.events.reasoning import ReasoningText
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.events.status import EventStatus
from ai_ticket_daemon.server.answers import (
    accepted_object,
    completion_object,
    delta_frame,
    error_object,
    health_object,
    last_frame,
    status_object,
    to_json,
    with_warnings,
)
from ai_ticket_daemon.status.snapshot import HealthStatus, QueueSnapshot
from ai_ticket_daemon.testing.http import backend_snapshot, healthy
from ai_ticket_daemon.testing.pipeline import succeeded
from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

EXPECTED = json.loads((ROOT / "tests/unit/server/answer_bytes.json").read_text())
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
EVENT = Event(
    "id",
    (Message(Role.USER, "a"),),
    Sampling(),
    1_764_000_000.25,
    1_764_000_300.25,
    metadata={"ticket": 17},
    trace_context={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
)
BARE = structs.replace(EVENT, metadata=None, trace_context={})
ATTEMPT = Attempt("primary", 1_764_000_000.5, 1_764_000_001.5, None, None, counted=True)
LOST = replace(
    ATTEMPT, error=ErrorCode.API_STALLED, message="It stalled.", retried=True, because="other"
)
FAILED = Failed(
    ErrorCode.API_STALLED, "Sentence.", details={"b": 1, "a": [2]}, attempts=(ATTEMPT, LOST)
)
QUEUED = EventStatus(EVENT, EventState.QUEUED, position=3, estimated_start_at=1_764_000_002.0)
HELD = structs.replace(QUEUED, held="paused", estimated_start_at=None, ahead=1.5)
ENDED = EventStatus(EVENT, EventState.SUCCEEDED, (LOST, ATTEMPT), succeeded("text"))
LOST_ALL = EventStatus(BARE, EventState.FAILED, (LOST,), FAILED)
THOUGHT_OF = replace(succeeded("text"), reasoning="Hm.", usage=Usage(3, 4, reasoning_tokens=2))
REFUSED = RequestRefused(ErrorCode.QUEUE_FULL, "Sentence.")
WELL = replace(
    healthy(),
    status=HealthStatus.DEGRADED,
    version="1",
    uptime_seconds=1.23456,
    reasons=("a", "b"),
    backends=(backend_snapshot("primary", "primary", "ready", active=True, in_flight=1),),
    queue=QueueSnapshot(states={"queued": 1, "running": 0}),
)
MADE: dict[str, Callable[[], bytes]] = {
    "error": lambda: to_json(error_object(REFUSED, event_id=None, trace_id=TRACE)),
    "error of an event": lambda: to_json(error_object(FAILED, event_id="id", trace_id=None)),
    "completion": lambda: to_json(completion_object(EVENT, succeeded("text ü"))),
    "completion, half a surrogate pair": lambda: to_json(
        completion_object(BARE, succeeded("x\ud800y ü"))
    ),
    "completion, warned": lambda: to_json(
        with_warnings(completion_object(BARE, succeeded("")), ["one", "two"])
    ),
    "accepted": lambda: to_json(accepted_object(QUEUED)),
    "accepted, held and warned": lambda: to_json(with_warnings(accepted_object(HELD), ["one"])),
    "queued": lambda: to_json(status_object(QUEUED)),
    "held": lambda: to_json(status_object(HELD)),
    "succeeded": lambda: to_json(status_object(ENDED)),
    "failed": lambda: to_json(status_object(LOST_ALL)),
    "health": lambda: to_json(health_object(WELL)),
    "delta": lambda: delta_frame("a\nb"),
    "delta, thinking": lambda: delta_frame(ReasoningText("a\nb")),
    "completion, with thinking": lambda: to_json(completion_object(BARE, THOUGHT_OF)),
    "end": lambda: last_frame(EVENT, succeeded("text"), TRACE),
    "end, warned": lambda: last_frame(BARE, succeeded("text"), TRACE, ["one"]),
    "failed end": lambda: last_frame(EVENT, FAILED, TRACE, ["one"]),
}


@pytest.mark.parametrize("name", MADE)
def test_the_bytes_of_an_answer_stay_as_they_are(name: str) -> None:
    assert MADE[name]().decode() == EXPECTED[name]


def test_every_kind_of_answer_is_compared() -> None:
    assert MADE.keys() == EXPECTED.keys()
