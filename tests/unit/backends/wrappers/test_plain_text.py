from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.wrappers.plain_text import PlainTextClient
from ai_ticket_daemon.config.backends import EscapedTexts, ServerConfig
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize("size", [1, 100_000])
async def test_a_text_of_any_length_is_sent_as_the_setting_in_force_says(
    size: int, autojump_clock: MockClock
) -> None:
    inner = FakeClient(ServerConfig(name="primary", url="http://primary:1"))
    settings = [EscapedTexts.USER]
    client = PlainTextClient(inner, lambda: settings[-1])
    text = "x" * size + "</s>"
    request = GenerationRequest((Message(Role.USER, text),), Sampling())
    await client.generate(request)
    settings.append(EscapedTexts.OFF)
    await client.generate(request)
    assert inner.prompts == [text.replace("</s>", "< /s>"), text]
    # What was asked for stays as it is: the next attempt begins from there, and the event's record.
    assert request == replace(request, messages=(Message(Role.USER, text),))
    assert (await client.probe()).model == "fake"
