"""What a server says that a completion cost, and whether that can be true."""

from __future__ import annotations

from typing import Any

import pytest

from ai_ticket_daemon.backends.dialects.dialect import read_usage
from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.generation_stream import Completion
from ai_ticket_daemon.backends.usage import LARGEST_CONTEXT, estimate_usage, true_usage
from ai_ticket_daemon.config.backends import BackendKind, ServerConfig
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Usage
from tests.support.hostile_server import Odd, open_hostile_server
from tests.support.odd_answers import answer, chat, delta
from tests.support.odd_answers import stream as in_stream

MOST = 30
TEXT = "Hello."
MODELS, CHAT = "/v1/models", "/v1/chat/completions"
KOBOLDCPP = {"data": [{"id": "koboldcpp/model", "owned_by": "koboldcpp"}]}
ANOTHER = {"data": [{"id": "model"}]}


def told(prompt: object, completion: object, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def thought(tokens: object, **more: Any) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}, **more}


def completion_of(text: str, usage: Usage | None) -> Completion:
    return Completion(text, "stop", usage, stopped=False, characters=len(text))


@pytest.mark.parametrize(
    ("says", "usage"),
    [
        (told(14, 24), Usage(14, 24)),
        (told(14.0, 24), Usage(14, 24)),
        (None, None),
        ([14, 24], None),
        ({}, None),
        (told(14, None), None),
        (told(-1, 24), None),
        (told(14, -24), None),
        (told(True, True), None),
        (told("14", "24"), None),
        (told(14, 2.5), None),
        (told(14, 1e300), None),
        (told(14, 24, **thought(8)), Usage(14, 24, reasoning_tokens=8)),
        (told(14, 24, **thought(24)), Usage(14, 24, reasoning_tokens=24)),
        (told(14, 24, **thought(25)), Usage(14, 24)),
        (told(14, 24, **thought(0)), Usage(14, 24)),
        (told(14, 24, **thought(-1)), Usage(14, 24)),
        (told(14, 24, **thought(True)), Usage(14, 24)),
        (told(14, 24, **thought("8")), Usage(14, 24)),
        (told(14, 24, completion_tokens_details=[8]), Usage(14, 24)),
        (told(14, 4, **thought(20, total_tokens=38)), Usage(14, 24, reasoning_tokens=20)),
        (told(14, 24, **thought(20, total_tokens=38)), Usage(14, 24, reasoning_tokens=20)),
        (told(14, 4, **thought(20, total_tokens=37)), Usage(14, 4)),
    ],
)
def test_a_usage_is_read_if_it_is_made_of_counts(says: object, usage: Usage | None) -> None:
    assert read_usage(says) == usage


@pytest.mark.parametrize(
    ("usage", "text", "believed"),
    [
        (Usage(14, 24), TEXT, True),
        (Usage(14, 0), "", True),
        (Usage(14, MOST), "", True),
        (Usage(100, 40), TEXT, True),
        (Usage(LARGEST_CONTEXT, 24), TEXT, True),
        (Usage(14, 400), TEXT * 100, True),
        (None, TEXT, False),
        (Usage(14, 0), TEXT, False),
        (Usage(0, 0), "", False),
        (Usage(0, 5), TEXT, False),
        (Usage(LARGEST_CONTEXT + 1, 24), TEXT, False),
        (Usage(14, 400), TEXT, False),
        (Usage(14, 10**12), TEXT * 100, False),
    ],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_a_usage_that_cannot_be_true_is_not_taken(
    usage: Usage | None, text: str, believed: bool, trusted: bool
) -> None:
    found = true_usage(completion_of(text, usage), max_tokens=MOST, trusted=trusted)
    assert found == (usage if believed else None)


def test_what_old_versions_say_of_everything_is_taken_from_newer_ones_only() -> None:
    completion = completion_of(TEXT, Usage(100, 100))
    assert true_usage(completion, max_tokens=256, trusted=False) is None
    assert true_usage(completion, max_tokens=256, trusted=True) == Usage(100, 100)


def test_for_want_of_a_count_the_length_is_taken_or_the_limit_if_that_was_reached() -> None:
    completion = completion_of("x" * 40, None)
    for reason, most, written in [("stop", 50, 10), ("stop", 5, 5), ("length", 50, 50)]:
        usage = estimate_usage(completion, reason, prompt_tokens=3, max_tokens=most)
        assert usage == Usage(3, written, estimated=True)


@pytest.mark.parametrize(
    ("says", "models", "estimated"),
    [
        (told(14, 24), ANOTHER, False),
        (told(100, 100), ANOTHER, False),
        (told(100, 100), KOBOLDCPP, True),
        (told(14, 24), KOBOLDCPP, False),
        (told(0, 0), ANOTHER, True),
        (told(14, 0), ANOTHER, True),
        (told(10**9, 24), ANOTHER, True),
        (told(14, 5000), ANOTHER, True),
        (told("14", "24"), ANOTHER, True),
        (None, ANOTHER, True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_any_server_says_is_believed_by_the_same_rule(
    says: object, models: dict[str, Any], estimated: bool, stream: bool
) -> None:
    reply = in_stream(delta(TEXT, "stop", usage=says)) if stream else answer(chat(TEXT, usage=says))
    async with open_hostile_server({MODELS: Odd(answer(models)), CHAT: Odd(reply)}) as server:
        config = ServerConfig("primary", server.url, kind=BackendKind.OPENAI)
        client = open_client(config, stall_seconds=lambda: 60.0, on_abort=lambda *_: None)
        await client.probe()
        request = GenerationRequest((Message(Role.USER, "Hi"),), Sampling(), stream=stream)
        usage = (await client.generate(request)).usage
        await client.aclose()
    assert usage.estimated is estimated
    assert usage.completion_tokens < 256
