"""What the daemon makes of the answers that a real KoboldCPP 1.115 was recorded to give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.failure import BackendError, HealthEvent, RetryRule
from ai_ticket_daemon.backends.generation import GenerationRequest, GenerationResult
from ai_ticket_daemon.config.backends import Dialect
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Usage
from ai_ticket_daemon.events.reasoning import ReasoningText
from tests.support.hostile_server import Odd
from tests.support.odd_answers import answer
from tests.support.recorded_server import (
    checked,
    client_of,
    open_recorded,
    open_recorded_server,
    perf,
    recorded,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

GUARD_SECONDS = 60.0
UNENDED = (
    "I'm here to help with your math homework. I can assist with any math topic you're working on. "
    "What's your math homework?"
)
INACTIVE = Odd(answer({"result": "inactive"}))


def asks(
    text: str = "Name three primary colours.",
    *,
    begun: bool = False,
    max_tokens: int = 60,
    stop: tuple[str, ...] = (),
    stream: bool = False,
    reasoning: bool = False,
) -> GenerationRequest:
    messages = [Message(Role.USER, text)]
    if begun:
        messages.append(Message(Role.ASSISTANT, "<think>"))
    sampling = Sampling(max_tokens=max_tokens, stop=stop)
    return GenerationRequest(tuple(messages), sampling, stream=stream, reasoning=reasoning)


async def made(
    name: str,
    request: GenerationRequest,
    *,
    dialect: Dialect = Dialect.OPENAI_CHAT,
    **odd: Odd,
) -> tuple[GenerationResult, list[str]]:
    """Return what a client makes of a recording, and the pieces it passes on."""
    result, pieces = await tried(name, request, dialect, odd)
    assert isinstance(result, GenerationResult), result
    return result, pieces


async def failed(name: str, request: GenerationRequest, **odd: Odd) -> BackendError:
    error, _ = await tried(name, request, Dialect.OPENAI_CHAT, odd)
    assert isinstance(error, BackendError), error
    return error


async def tried(
    name: str, request: GenerationRequest, dialect: Dialect, odd: Mapping[str, Odd]
) -> tuple[GenerationResult | BackendError, list[str]]:
    pieces: list[str] = []
    with trio.fail_after(GUARD_SECONDS):
        async with open_recorded(name, dialect=dialect, **odd) as client:
            try:
                return await client.generate(request, pieces.append), pieces
            except BackendError as error:
                return error, pieces


async def test_thinking_is_no_part_of_the_completion() -> None:
    result, _ = await made("chat_reasoning", asks())
    assert (result.text, result.reasoning) == ("Yes, it is.", "I think so.")
    assert result.usage == Usage(14, 22, reasoning_tokens=11)


async def test_a_stream_that_thinks_passes_its_thinking_on_apart() -> None:
    whole = "<think>I think so, and so on, and so on, for a long while.</think>Yes, it is."
    figures, check = perf(stop_reason=1, last_token_count=22), checked(whole)
    request = asks(stream=True, reasoning=True)
    result, pieces = await made("chat_reasoning_stream", request, perf=figures, check=check)
    thought = "I think so, and so on, and so on, for a long while."
    assert (result.text, result.reasoning) == ("Yes, it is.", thought)
    assert "".join(p for p in pieces if isinstance(p, ReasoningText)) == thought
    assert "".join(p for p in pieces if not isinstance(p, ReasoningText)) == "Yes, it is."

    request = asks(stream=True)
    result, pieces = await made("chat_reasoning_stream", request, perf=figures, check=check)
    assert "".join(pieces) == "Yes, it is."
    assert result.reasoning == thought


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_cut_by_the_limit_is_thinking_plain_and_streamed(stream: bool) -> None:
    name = "chat_reasoning_cut_by_limit" + ("_stream" if stream else "")
    request = asks(begun=True, max_tokens=12, stream=stream, reasoning=True)
    result, pieces = await made(name, request, perf=perf(last_token_count=12, last_input_count=17))
    assert result.text == ""
    assert result.reasoning == "The primary colours are: Red, Blue, and Green."
    assert result.finish_reason == "length"
    assert result.usage.reasoning_tokens == result.usage.completion_tokens == 12
    assert "".join(pieces) == (result.reasoning if stream else "")
    assert all(isinstance(piece, ReasoningText) for piece in pieces)


@pytest.mark.parametrize(("wanted", "retry"), [(True, RetryRule.FINAL), (False, RetryRule.OVER)])
async def test_thinking_that_was_passed_on_cannot_be_taken_back(
    wanted: bool, retry: RetryRule
) -> None:
    name = "chat_reasoning_cut_by_limit_stream"
    thinking, _, _ = recorded(name).raw.rpartition(b"data: {")
    request = asks(stream=True, reasoning=wanted)
    error = await failed(name, request, made=Odd(thinking), check=checked("else"))
    assert error.failure.retry is retry


@pytest.mark.parametrize(
    ("made_text", "thinks"),
    [
        ("<think>The primary colours are: Red, Blue, and Green.", True),
        ("<think>Hm.</think>The primary colours are: Red, Blue, and Green.", False),
        ("The primary colours are: Red, Blue, and Green.", False),
        ("", False),  # another generation came since
    ],
)
async def test_thinking_cut_by_the_limit_is_known_by_the_tag_the_server_still_has(
    made_text: str, thinks: bool
) -> None:
    text = "The primary colours are: Red, Blue, and Green."
    name, request = "chat_reasoning_cut_by_limit", asks(max_tokens=12)
    result, _ = await made(name, request, check=checked(made_text))
    assert (result.text, result.reasoning) == (("", text) if thinks else (text, ""))
    assert result.usage == Usage(17, 12, reasoning_tokens=12 if thinks else None)


async def test_a_model_whose_template_thinks_is_asked_for_a_stream_whatever_the_client_wants() -> (
    None
):
    template = Odd(answer({"chat_template": "{{ '<|im_start|>assistant\\n<think>\\n' }}"}))
    name, pieces = "chat_reasoning_cut_by_limit_stream", list[str]()
    async with open_recorded_server(name, props=template) as server:
        client = client_of(server.url)
        await client.probe()
        with trio.fail_after(GUARD_SECONDS):
            result = await client.generate(asks(max_tokens=12), pieces.append)
        await client.aclose()
        bodies = [json.loads(body) for body in server.bodies if b"messages" in body]
    assert [body["stream"] for body in bodies] == [True]
    assert (result.text, result.finish_reason) == ("", "length")
    assert result.reasoning == "The primary colours are: Red, Blue, and Green."
    assert pieces == []


async def test_text_dialects_part_the_thinking_at_its_tags() -> None:
    request = asks("Is it?")
    result, _ = await made("completion_reasoning", request, dialect=Dialect.OPENAI_COMPLETIONS)
    assert (result.text, result.reasoning) == ("Yes, it is.", "I think so.")
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, 20)
    assert not result.usage.estimated


@pytest.mark.parametrize(
    ("name", "dialect", "stream", "usage"),
    [
        ("chat_plain", Dialect.OPENAI_CHAT, False, Usage(14, 24)),
        ("chat_stream_usage", Dialect.OPENAI_CHAT, True, Usage(14, 6)),
        ("completion_plain", Dialect.OPENAI_COMPLETIONS, False, Usage(4, 12)),
        ("generate_plain", Dialect.KOBOLD, False, Usage(4, 12)),
    ],
)
async def test_the_usage_is_the_servers(
    name: str, dialect: Dialect, stream: bool, usage: Usage
) -> None:
    result, _ = await made(name, asks(stream=stream), dialect=dialect)
    assert result.usage == usage


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_without_a_model_makes_no_empty_completion(stream: bool) -> None:
    name = "nomodel_chat" + ("_stream" if stream else "")
    error = await failed(name, asks(stream=stream), model=INACTIVE)
    assert error.code is ErrorCode.API_SERVER_ERROR
    assert error.failure.health_event is HealthEvent.NO_MODEL
    assert error.failure.retry is RetryRule.OVER


@pytest.mark.parametrize(
    ("stop_reason", "tokens", "text", "finish_reason"),
    [
        (1, 32, f"{UNENDED}\n", "stop"),
        (2, 32, f"{UNENDED} END.", "stop"),
        (0, 40, UNENDED, "length"),
        (1, 3, "", "stop"),  # as many as the server counts in this text
    ],
)
async def test_a_stream_without_its_end_is_a_completion_if_the_server_confirms_it(
    stop_reason: int, tokens: int, text: str, finish_reason: str
) -> None:
    result, pieces = await made(
        "chat_stream_without_end",
        asks(max_tokens=40, stream=True, stop=("END",)),
        perf=perf(stop_reason=stop_reason, last_token_count=tokens, last_input_count=15),
        check=checked(text),
    )
    assert result.text == "".join(pieces) == UNENDED
    assert result.finish_reason == finish_reason
    assert result.usage == Usage(15, tokens)


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        # Aborted by somebody else: it says that it reached its limit, and did not.
        ({"stop_reason": 0, "last_token_count": 31}, UNENDED),
        # The text goes on.
        ({"stop_reason": 1, "last_token_count": 40}, f"{UNENDED} Tell me"),
        ({"stop_reason": 2, "last_token_count": 40}, f"{UNENDED} Tell me"),
        # Another generation came since, and made more.
        ({"stop_reason": 1, "last_token_count": 20}, ""),
        # Another process, one that has begun on something else, one that counts nothing.
        ({"stop_reason": 1, "last_token_count": 32, "uptime": 0.0}, UNENDED),
        ({"stop_reason": 1, "last_token_count": 32, "queue": 1}, UNENDED),
        ({"stop_reason": -1, "last_token_count": 0}, ""),
    ],
)
async def test_a_stream_without_its_end_fails_if_the_server_does_not_confirm_it(
    figures: dict[str, float], text: str
) -> None:
    error = await failed(
        "chat_stream_without_end",
        asks(max_tokens=40, stream=True, stop=("END",)),
        perf=perf(**figures),
        check=checked(text),
    )
    assert error.code is ErrorCode.API_CONNECTION_ERROR
    assert error.failure.retry is RetryRule.FINAL, "a part of the text was delivered"
