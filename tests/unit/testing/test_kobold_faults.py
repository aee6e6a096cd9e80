"""Each fault as a client meets it, over real sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.testing.kobold import (
    SCRIPTS,
    KoboldSettings,
    ScriptedAnswer,
    SimulatedKobold,
    answer_mark,
    open_simulated_kobold,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FAST = KoboldSettings().instant()
SLOW = replace(FAST, tokens_per_second=5, natural_tokens=(500, 500))
GUARD_SECONDS = 60


@pytest.fixture
async def sim() -> AsyncIterator[SimulatedKobold]:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(FAST) as simulated:
            yield simulated


@pytest.fixture
async def slow() -> AsyncIterator[SimulatedKobold]:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(SLOW) as simulated:
            yield simulated


async def request(sim: SimulatedKobold, path: str, body: dict[str, Any] | None = None) -> bytes:
    """The whole raw answer."""
    async with await trio.open_tcp_stream("127.0.0.1", sim.port) as stream:
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n"
        await stream.send_all(head.encode() + data)
        answer = b""
        async for piece in stream:
            answer += piece
        return answer


def content(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def generate(sim: SimulatedKobold, **body: Any) -> bytes:
    return await request(sim, "/api/v1/generate", {"prompt": "x"} | body)


async def perf(sim: SimulatedKobold) -> dict[str, Any]:
    return dict(content(await request(sim, "/api/extra/perf")))


async def is_silent(sim: SimulatedKobold, path: str = "/api/extra/perf") -> bool:
    with trio.move_on_after(0.1):
        await request(sim, path)
        return False
    return True


class Outcome:
    """How a request in the background ended."""

    def __init__(self) -> None:
        self.answer = b""
        self.broken = False
        self.over = trio.Event()

    async def run(self, sim: SimulatedKobold, body: dict[str, Any]) -> None:
        try:
            self.answer = await generate(sim, **body)
        except trio.BrokenResourceError:
            self.broken = True
        self.over.set()


@pytest.mark.parametrize("reset", [False, True])
async def test_dying_cuts_everything_and_refuses_until_started_again(
    slow: SimulatedKobold, reset: bool
) -> None:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.run, slow, {})
        await slow.wait_for(lambda sim: sim.tokens_written > 0)
        slow.faults.die(reset=reset)
        with pytest.raises(OSError, match="connect"):
            await perf(slow)
    assert (outcome.answer, outcome.broken) == (b"", reset)
    assert not slow.alive
    slow.faults.start_again()
    assert (await perf(slow))["total_gens"] == 0


async def test_a_restart_comes_back_with_fresh_counters(sim: SimulatedKobold) -> None:
    await generate(sim)
    assert (await perf(sim))["total_gens"] == 1
    sim.faults.restart(after_seconds=0.05)
    with pytest.raises(OSError, match="connect"):
        await perf(sim)
    await sim.wait_for(lambda sim: sim.alive)
    figures = await perf(sim)
    assert (figures["total_gens"], figures["stop_reason"]) == (0, -1)
    assert figures["uptime"] < 5


async def test_a_restart_that_takes_no_time_still_cuts_connections(slow: SimulatedKobold) -> None:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.run, slow, {})
        await slow.wait_for(lambda sim: sim.tokens_written > 0)
        slow.faults.restart()
        assert (await perf(slow))["idle"] == 1
    assert outcome.answer == b""


async def test_refusing_spares_the_connections_that_are_open(slow: SimulatedKobold) -> None:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.run, slow, {"max_length": 2})
        await slow.wait_for(lambda sim: sim.running == 1)
        slow.faults.refuse()
        with pytest.raises(OSError, match="connect"):
            await perf(slow)
    assert content(outcome.answer)["results"][0]["text"]
    slow.faults.clear()
    assert (await perf(slow))["total_gens"] == 1


async def test_a_frozen_server_accepts_and_stays_silent_until_it_thaws(
    sim: SimulatedKobold,
) -> None:
    sim.faults.freeze()
    assert await is_silent(sim)
    async with trio.open_nursery() as nursery:
        outcome = Outcome()
        nursery.start_soon(outcome.run, sim, {})
        assert await is_silent(sim)
        sim.faults.clear()
    assert content(outcome.answer)["results"][0]["text"]


async def test_a_generation_stands_still_while_the_server_is_frozen(slow: SimulatedKobold) -> None:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.run, slow, {"max_length": 3})
        await slow.wait_for(lambda sim: sim.tokens_written == 1)
        slow.faults.freeze()
        with trio.move_on_after(0.5) as patience:
            await outcome.over.wait()
        assert patience.cancelled_caught
        slow.faults.clear()
    assert slow.log[-1].tokens == 3


async def test_a_stall_holds_the_lock_while_probes_are_answered(sim: SimulatedKobold) -> None:
    sim.faults.stall(after_tokens=2)
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome.run, sim, {"genkey": "K"})
        await sim.wait_for(lambda sim: sim.faults.stalled_tasks == 1)
        assert sim.tokens_written == 2
        assert (await perf(sim))["idle"] == 0
        answer = await request(sim, "/api/extra/abort", {"genkey": "K"})
        assert content(answer) == {"success": "true", "done": "true"}
        assert not outcome.over.is_set()
        sim.faults.clear()
    assert sim.log[-1].outcome == "aborted"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stream_can_be_cut_after_some_events(slow: SimulatedKobold, reset: bool) -> None:
    slow.faults.cut_stream(after_events=2, times=1, reset=reset)
    received = b""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", slow.port) as stream:
            body = b'{"prompt": "x", "stream": true, "max_tokens": 4}'
            head = b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body)
            await stream.send_all(head + body)
            async for piece in stream:
                received += piece
    except trio.BrokenResourceError:
        assert reset
    else:
        assert not reset
    assert received.count(b"data: ") == 2
    assert b"[DONE]" not in received
    whole = await request(slow, "/v1/completions", {"prompt": "x", "stream": True, "max_tokens": 2})
    assert whole.endswith(b"data: [DONE]")


async def test_a_lost_model_looks_healthy_and_answers_with_empty_text(
    sim: SimulatedKobold,
) -> None:
    await generate(sim)
    sim.faults.lose_model()
    assert (await perf(sim))["idle"] == 1
    assert content(await request(sim, "/api/v1/model")) == {"result": "inactive"}
    assert content(await generate(sim))["results"][0]["text"] == ""
    stream = await request(sim, "/api/extra/generate/stream", {"prompt": "x"})
    assert stream.endswith(b'data: {"token": "", "finish_reason": "length"}\n\n')


async def test_a_swapped_model_shows_its_name_and_context(sim: SimulatedKobold) -> None:
    sim.faults.swap_model(model="koboldcpp/other", context_tokens=512)
    assert content(await request(sim, "/api/v1/model")) == {"result": "koboldcpp/other"}
    size = await request(sim, "/api/extra/true_max_context_length")
    assert content(size) == {"value": 512}


async def test_a_busy_server_answers_503_and_looks_full(sim: SimulatedKobold) -> None:
    sim.faults.answer_busy()
    assert (await generate(sim)).startswith(b"HTTP/1.0 503 ")
    figures = await perf(sim)
    assert (figures["idle"], figures["queue"]) == (0, 6)
    assert sim.observations.busy_answers_total == 1
    sim.faults.clear()
    assert (await generate(sim)).startswith(b"HTTP/1.0 200 ")


async def test_rejected_credentials_show_in_the_masked_model_name(sim: SimulatedKobold) -> None:
    sim.faults.reject_credentials()
    assert (await generate(sim)).startswith(b"HTTP/1.0 401 ")
    model = content(await request(sim, "/api/v1/model"))
    assert model == {"result": "koboldcpp/protected-model"}


async def test_slowing_down_makes_an_instant_server_take_its_time(sim: SimulatedKobold) -> None:
    sim.faults.slow_down(tokens_per_second=0.1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(generate, sim)
        await sim.wait_for(lambda sim: sim.running == 1)
        assert (await perf(sim))["idle"] == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", sorted(SCRIPTS.keys() - {"hang", "reset"}))
async def test_a_scripted_answer_is_given_as_often_as_asked(
    sim: SimulatedKobold, name: str
) -> None:
    sim.faults.script(name, times=1)
    assert await generate(sim) == SCRIPTS[name].raw
    assert content(await generate(sim))["results"][0]["text"].startswith(answer_mark("x"))


async def test_a_scripted_reset_breaks_the_connection(sim: SimulatedKobold) -> None:
    sim.faults.script("reset")
    with pytest.raises(trio.BrokenResourceError):
        await generate(sim)


async def test_a_scripted_hang_leaves_the_lock_free(sim: SimulatedKobold) -> None:
    sim.faults.script("hang", times=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(generate, sim)
        await sim.wait_for(lambda sim: sim.log and sim.log[-1].ended is not None)
        assert (await perf(sim))["idle"] == 1
        assert content(await generate(sim))["results"][0]["text"]
        nursery.cancel_scope.cancel()


async def test_an_own_scripted_answer_goes_out_to_the_letter(sim: SimulatedKobold) -> None:
    sim.faults.script(ScriptedAnswer.of(418, '{"short": "and stout"}'))
    answer = await generate(sim)
    assert answer.startswith(b"HTTP/1.0 418 ")
    assert content(answer) == {"short": "and stout"}


async def test_an_unknown_script_is_refused_with_the_names_there_are(sim: SimulatedKobold) -> None:
    with pytest.raises(ValueError, match="half_json"):
        sim.faults.script("nonsense")


async def test_answers_go_to_those_who_asked(sim: SimulatedKobold) -> None:
    answers: dict[str, str] = {}

    async def ask(prompt: str) -> None:
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 30}
        answer = content(await request(sim, "/v1/chat/completions", body))
        answers[prompt] = answer["choices"][0]["message"]["content"]

    async with trio.open_nursery() as nursery:
        for number in range(7):
            nursery.start_soon(ask, f"question {number}")
    expected = {
        prompt: sim.expected_completion(prompt, max_tokens=30)
        for prompt in (f"question {number}" for number in range(7))
    }
    assert answers == expected
    assert sim.observations.max_running == 1
    assert sim.observations.completed_total == 7
