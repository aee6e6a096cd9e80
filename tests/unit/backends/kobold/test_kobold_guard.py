"""What a generation that was stopped is said to have made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio
from hostile_server import Odd, open_hostile_server
from odd_answers import answer
from well_server import PERF, WELL

from ai_ticket_daemon.backends.generation import Received
from ai_ticket_daemon.backends.generation_stream import Completion, GenerationStream
from ai_ticket_daemon.backends.kobold.guard import KoboldGuard
from ai_ticket_daemon.backends.tokens import TokenCounter
from ai_ticket_daemon.backends.transport.wire import Wire


def stopped(*, stream: bool, tokens: int, text: str) -> GenerationStream:
    """Return what the guard sees of a generation that has ended at the abort."""
    completion = None
    if not stream:
        completion = Completion(text, "length", None, stopped=False, characters=len(text))
    finished = trio.Event()
    finished.set()
    generation = SimpleNamespace(
        stream=stream,
        sent_at=trio.current_time(),
        ended_at=trio.current_time() + 3600.0,  # however busy this machine is
        finished=finished,
        completion=completion,
        received=Received(tokens, estimated=tokens > 0),
    )
    return cast("GenerationStream", generation)


@pytest.mark.parametrize(
    ("stream", "received", "told", "tokens", "estimated"),
    [
        (True, 44, 80, 80, False),
        (False, 44, 80, 80, False),
        (True, 44, 0, 44, True),  # with several slots the server counts nothing
        (False, 44, 0, 3, False),  # as many as it counts in the text
        (True, 0, 80, 0, False),  # stopped before its first token: that was another generation
    ],
)
async def test_what_was_made_in_vain_is_counted_by_the_server(
    stream: bool, received: int, told: int, tokens: int, estimated: bool
) -> None:
    figures = {"idle": 1, "queue": 0, "uptime": 1e6, "total_gens": 3, "last_token_count": told}
    async with open_hostile_server({**WELL, PERF: Odd(answer(figures))}) as server:
        wire = Wire(server.url, password=None, connect_timeout_seconds=60.0, keep_alive=False)
        guard = KoboldGuard(
            wire,
            "key",
            counter=TokenCounter(wire),
            look_seconds=60.0,
            on_abort=lambda _reason, _freed: None,
        )
        generation = stopped(stream=stream, tokens=received, text="Hello." if received else "")
        assert await guard.stop(generation, None)
    assert (generation.received.tokens, generation.received.estimated) == (tokens, estimated)
