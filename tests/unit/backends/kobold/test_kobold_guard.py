"""What a generation that was stopped is said to have made."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import trio

from ai_ticket_daemon.backends.bounds import answer_bounds
from ai_ticket_daemon.backends.generation import Received
from ai_ticket_daemon.backends.generation_stream import Completion, GenerationStream
from ai_ticket_daemon.backends.kobold import guard as kobold_guard
from ai_ticket_daemon.backends.kobold.guard import KoboldGuard
from ai_ticket_daemon.backends.kobold.perf import parse_perf
from ai_ticket_daemon.backends.kobold.reading import PromptSpeed, Reading, cautious_tokens
from ai_ticket_daemon.backends.observation import SlotEnd
from ai_ticket_daemon.backends.tokens import TokenCounter
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.testing.recordings import load_recordings
from tests.support.hostile_server import Odd, open_hostile_server
from tests.support.odd_answers import answer
from tests.support.project import ROOT
from tests.support.well_server import PERF, WELL

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.kobold.abort import AbortEnd

CHECK = "/api/extra/generate/check"


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
        close=lambda: None,
        completion=completion,
        progress_at=None,
        began_at=None,
        bounds=answer_bounds(8, 100),
        received=Received(tokens, estimated=tokens > 0),
    )
    return cast("GenerationStream", generation)


@pytest.mark.parametrize(
    ("stream", "received", "told", "batches", "tokens", "estimated"),
    [
        (True, 44, 80, False, 80, False),
        (False, 44, 80, False, 80, False),
        (True, 44, 0, False, 44, True),  # the counters stand still
        (True, 44, 80, True, 44, True),  # several at once: they are those of another generation
        (False, 44, 0, False, 3, False),  # as many as it counts in the text
        (True, 0, 80, False, 0, False),  # stopped before its first token
    ],
)
async def test_what_was_made_in_vain_is_counted_by_the_server(
    stream: bool, received: int, told: int, batches: bool, tokens: int, estimated: bool
) -> None:
    figures = {"idle": 1, "queue": 0, "uptime": 1e6, "total_gens": 3, "last_token_count": told}
    async with open_hostile_server({**WELL, PERF: Odd(answer(figures))}) as server:
        wire = Wire(server.url, password=None, connect_timeout_seconds=60.0, keep_alive=False)
        guard = KoboldGuard(
            wire,
            "key",
            counter=TokenCounter(wire),
            batches=batches,
            look_seconds=60.0,
            on_abort=lambda _reason, _end: None,
            reading=Reading(PromptSpeed(), 1, 60.0),
        )
        generation = stopped(stream=stream, tokens=received, text="Hello." if received else "")
        slot = SlotEnd.UNSEEN if batches else SlotEnd.FREE
        assert await guard.stop(generation, None) is slot
    assert (generation.received.tokens, generation.received.estimated) == (tokens, estimated)


READS = {"idle": 0, "queue": 0, "uptime": 1e6, "total_gens": 3, "last_token_count": 5}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("token_ms", "elapsed", "text", "end"),
    [
        (10, 12.0, "", SlotEnd.READING),  # 2000 tokens take up to 35 s
        (10, 36.0, "", SlotEnd.TAKEN),
        (1, 12.0, "", SlotEnd.TAKEN),  # a faster server should have been through
        (0, 12.0, "", SlotEnd.READING),  # nothing measured: 120 s are allowed for the first token
        (0, 121.0, "", SlotEnd.TAKEN),
        (10, 12.0, "Hello", SlotEnd.TAKEN),  # it writes, and does not stop
    ],
)
async def test_a_server_that_still_reads_the_prompt_is_told_from_one_that_does_not_stop(
    stream: bool,
    token_ms: float,
    elapsed: float,
    text: str,
    end: SlotEnd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kobold_guard, "ABORT_BOUND_SECONDS", 0.01)
    odd = {CHECK: Odd(answer({"results": [{"text": text}]}))}
    async with open_hostile_server({**WELL, **odd}) as server:
        wire = Wire(server.url, password=None, connect_timeout_seconds=60.0, keep_alive=False)
        speed = PromptSpeed()
        speed.note(parse_perf(READS | {"last_process": token_ms}))
        ends: list[AbortEnd] = []
        guard = KoboldGuard(
            wire,
            "key",
            counter=TokenCounter(wire),
            batches=False,
            look_seconds=60.0,
            on_abort=lambda _reason, found: ends.append(found),
            reading=Reading(speed, 2000, 120.0),
        )
        generation = stopped(stream=stream, tokens=0, text="")
        generation.finished = trio.Event()
        generation.sent_at = trio.current_time() - elapsed
        generation.progress_at = trio.current_time() if stream and text else None
        assert await guard.stop(generation, None) is end
    assert [found.slot for found in ends if found.over] == [end]
    assert [found.slot for found in ends if not found.over] == [end] * (end is SlotEnd.READING)
    if end is SlotEnd.READING:
        longest = 120.0 if token_ms == 0 else 2000 * 0.01 * 1.5 + 5
        assert longest - elapsed - 60 < ends[0].reading_seconds < longest - elapsed


def test_the_slowest_of_the_last_generations_says_how_long_a_prompt_may_be_read() -> None:
    speed = PromptSpeed()
    assert speed.longest_seconds(100) is None
    for number, token_ms in enumerate([50, 1, 1], 1):
        speed.note(parse_perf(READS | {"total_gens": number, "last_process": token_ms}))
    assert speed.longest_seconds(100) == pytest.approx(100 * 0.05 * 1.5 + 5)
    for number in range(4, 12):  # prompts that it knew already
        speed.note(parse_perf(READS | {"total_gens": number, "last_process": 1}))
    assert speed.longest_seconds(100) == pytest.approx(100 * 0.001 * 1.5 + 5)
    speed.note(parse_perf(READS | {"total_gens": 12, "last_process": -1}))
    speed.note(parse_perf(READS | {"total_gens": 12}))
    assert speed.longest_seconds(100) == pytest.approx(100 * 0.001 * 1.5 + 5)
    speed.forget()
    assert speed.longest_seconds(100) is None


def test_the_speeds_of_a_server_are_those_that_it_tells_itself() -> None:
    recorded = load_recordings(ROOT / "tests" / "fixtures" / "kobold-1.115")["perf_idle"].answer
    assert recorded is not None
    told = json.loads(recorded.body)
    perf = parse_perf(told)
    assert perf.prompt_tokens_per_second == pytest.approx(told["last_process_speed"])
    assert perf.written_tokens_per_second == pytest.approx(told["last_eval_speed"])
    unmeasured = parse_perf(READS | {"last_process": 0, "last_eval": "odd"})
    assert unmeasured.prompt_tokens_per_second is unmeasured.written_tokens_per_second is None


def test_a_server_that_loads_its_model_first_may_take_as_much_longer() -> None:
    speed = PromptSpeed()
    speed.note(parse_perf(READS | {"last_process": 10}))
    reads = Reading(speed, 1000, 120.0)
    loads = Reading(speed, 1000, 120.0, load_seconds=300.0)
    assert reads.left_seconds(0.0, 10.0) == pytest.approx(10.0)
    assert loads.left_seconds(0.0, 10.0) == pytest.approx(310.0)
    assert loads.left_seconds(0.0, 400.0) == 0.0
    assert cautious_tokens("a word") == 3
