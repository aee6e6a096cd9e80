"""What a generation is said to have cost, by what the server tells of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from hostile_server import Odd, open_hostile_server
from odd_answers import answer
from well_server import PERF, WELL

from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.generation_stream import Completion
from ai_ticket_daemon.backends.kobold.usage import settle, true_usage
from ai_ticket_daemon.backends.tokens import TokenCounter
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Usage

MADE = Completion("Hello.", "stop", None, stopped=False, characters=6)


@pytest.mark.parametrize(
    ("told", "text", "believed"),
    [
        (Usage(14, 24), "Hello.", True),
        (Usage(14, 0), "", True),
        (Usage(100, 101), "Hello.", True),
        (None, "Hello.", False),
        (Usage(100, 100), "Hello.", False),  # what 1.76 says of everything
        (Usage(14, 0), "Hello.", False),
        (Usage(0, 0), "", False),
        (Usage(0, 5), "Hello.", False),
    ],
)
def test_a_usage_that_cannot_be_true_is_not_taken(
    told: Usage | None, text: str, believed: bool
) -> None:
    completion = Completion(text, "stop", told, stopped=False, characters=len(text))
    assert true_usage(completion) == (told if believed else None)


async def usage_of(completion: Completion, *, took: float, **figures: Any) -> Usage:
    """Return the usage by a server whose statistics say this; it counts 3 tokens in any text."""
    told = {"idle": 1, "queue": 0, "uptime": 1e6, "total_gens": 3, "stop_reason": 1}
    perf = Odd(answer(told | {"last_token_count": 9} | figures))
    async with open_hostile_server({**WELL, PERF: perf}) as server:
        wire = Wire(server.url, password=None, connect_timeout_seconds=60.0, keep_alive=False)
        _, usage = await settle(
            completion,
            GenerationRequest((Message(Role.USER, "Please greet me"),), Sampling(max_tokens=16)),
            wire=wire,
            counter=TokenCounter(wire),
            prompt="Please greet me",
            prompt_tokens=None,
            took_seconds=took,
            ended_at=trio.current_time() + 3600.0,  # however busy this machine is
        )
    return usage


async def test_the_counters_of_the_server_are_taken_where_it_tells_no_usage() -> None:
    assert await usage_of(MADE, took=1.0, last_input_count=14) == Usage(14, 9)
    assert await usage_of(MADE, took=1.0) == Usage(3, 9)
    assert await usage_of(replace(MADE, usage=Usage(100, 100)), took=1.0) == Usage(3, 9)
    assert await usage_of(replace(MADE, usage=Usage(14, 24)), took=1.0) == Usage(14, 24)


async def test_counters_that_stand_still_are_not_taken() -> None:
    usage = await usage_of(MADE, took=1.0, last_token_count=0, last_input_count=0)
    assert usage == Usage(3, 3)


async def test_what_was_too_quick_to_be_counted_is_called_an_estimate() -> None:
    assert await usage_of(MADE, took=0.0) == Usage(4, 2, estimated=True)
    assert await usage_of(replace(MADE, usage=Usage(14, 24)), took=0.0) == Usage(14, 24)
