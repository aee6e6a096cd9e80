"""No server is sent a conversation that it would cut at its beginning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.backends import factory
from ai_ticket_daemon.backends.failure import BackendError
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.testing.recordings import load_recordings
from tests.support.hostile_server import HostileServer, Odd, open_hostile_server
from tests.support.odd_answers import answer, chat
from tests.support.project import ROOT
from tests.support.well_server import CHAT, CONTEXT, WELL

if TYPE_CHECKING:
    from collections.abc import Mapping

RECORDED = load_recordings(ROOT / "tests" / "fixtures" / "kobold-1.115")
COUNT = "/api/extra/tokencount"
# The conversation of a help desk that answers in a word: more markers than text.
PAIRS = [
    Message(role, f"{word} {number}?")
    for number in range(110)
    for role, word in ((Role.USER, "Q"), (Role.ASSISTANT, "A"))
]
CONVERSATION = (Message(Role.SYSTEM, "Be terse."), *PAIRS, Message(Role.USER, "Well?"))
REQUEST = GenerationRequest(CONVERSATION, Sampling(max_tokens=16))


def recorded(name: str) -> Odd:
    """Return what the real 1.115 answered."""
    recorded_answer = RECORDED[name].answer
    assert recorded_answer is not None
    return Odd(answer(recorded_answer.body))


def newer(**counted: object) -> dict[str, Odd]:
    """Return a server of 1.115 with a context of 2048 that counts so."""
    return {
        **WELL,
        "/api/extra/version": recorded("extra_version"),
        "/props": recorded("props"),
        CONTEXT: Odd(answer({"value": 2048})),
        COUNT: Odd(answer(counted)),
        CHAT: Odd(answer(chat())),
    }


async def outcome(server: HostileServer, request: GenerationRequest) -> BackendError | None:
    """Return the error of a generation, if it ends with one."""
    client = factory.open_client(
        ServerConfig(name="primary", url=server.url),
        stall_seconds=lambda: 60.0,
        on_abort=lambda _reason, _end: None,
    )
    try:
        await client.probe(identify=True)
        assert (await client.generate(request)).text == "Hello."
    except BackendError as error:
        return error
    finally:
        await client.aclose()
    return None


def overflow(error: BackendError | None) -> Mapping[str, Any]:
    """Return the details of the refusal that it has to be."""
    assert error is not None
    assert (error.code, error.failure.health_event) == (ErrorCode.CONTEXT_OVERFLOW, None)
    assert error.details is not None
    return error.details


def counts(server: HostileServer) -> list[dict[str, object]]:
    """Return what was asked to be counted."""
    found = zip(server.seen, server.bodies, strict=True)
    return [json.loads(body) for head, body in found if COUNT.encode() in head]


@pytest.mark.parametrize(("value", "fits"), [(2032, True), (2033, False), (2121, False)])
async def test_a_server_that_counts_conversations_is_asked_and_believed(
    value: int, fits: bool
) -> None:
    async with open_hostile_server(newer(value=value, ids=[1], prompt="laid out")) as server:
        found = await outcome(server, REQUEST)
        asked = counts(server)[0]
        assert asked["messages"] == [{"role": m.role, "content": m.content} for m in CONVERSATION]
        # What is counted has to be what is sent.
        assert asked["replace_instruct_placeholders"] is False
        generated = any(CHAT.encode() in head for head in server.seen)
    assert generated is fits
    assert (found is None) is fits
    if not fits:
        details = overflow(found)
        assert details["prompt_tokens"] == value
        assert "margin_tokens" not in details


@pytest.mark.parametrize(("value", "fits"), [(1112, True), (1113, False)])
async def test_a_margin_is_kept_for_the_template_of_a_server_that_cannot_count_conversations(
    value: int, fits: bool
) -> None:
    margin = 32 + 4 * len(CONVERSATION)
    assert value + margin + 16 == (2048 if fits else 2049)
    older = newer(value=value, ids=[1])
    del older["/api/extra/version"], older["/props"]
    async with open_hostile_server(older) as server:
        found = await outcome(server, REQUEST)
        assert "messages" not in counts(server)[0]
    assert (found is None) is fits
    if found is not None:
        assert overflow(found)["margin_tokens"] == margin
        assert f"up to {margin} more for the server's template" in found.message


async def test_a_newer_server_that_cannot_count_conversations_after_all_counts_as_an_older() -> (
    None
):
    async with open_hostile_server(newer(value=1113, ids=[1])) as server:
        found = await outcome(server, REQUEST)
        first, second, *_ = counts(server)
        assert ("messages" in first, "messages" in second) == (True, False)
    assert overflow(found)["margin_tokens"] == 32 + 4 * len(CONVERSATION)


async def test_the_recorded_count_is_the_one_that_is_read() -> None:
    recorded_count = newer() | {COUNT: recorded("tokencount_messages")}
    recorded_count[CONTEXT] = Odd(answer({"value": 23 + 15}))
    async with open_hostile_server(recorded_count) as server:
        found = await outcome(server, REQUEST)
    assert overflow(found)["prompt_tokens"] == 23
