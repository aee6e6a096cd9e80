"""Where a chat's answer has its text and its thinking, in the forms of several servers."""

from __future__ import annotations

from typing import Any

import pytest

from ai_ticket_daemon.backends.dialects import wire_dialect
from ai_ticket_daemon.config.backends import Dialect

CHAT = wire_dialect(Dialect.OPENAI_CHAT)


def text(said: object) -> dict[str, Any]:
    return {"type": "text", "text": said}


def thinking(thought: object) -> dict[str, Any]:
    return {"type": "thinking", "thinking": thought}


@pytest.mark.parametrize(
    ("message", "answer", "reasoning"),
    [
        ({"content": "Yes."}, "Yes.", ""),
        ({"content": "Yes.", "reasoning_content": "Hm."}, "Yes.", "Hm."),
        ({"content": None, "reasoning": "Hm."}, "", "Hm."),
        ({"content": "Yes.", "reasoning": 7}, "Yes.", ""),
        ({"content": [text("Ye"), text("s.")]}, "Yes.", ""),
        ({"content": [thinking("Hm."), text("Yes.")]}, "Yes.", "Hm."),
        ({"content": [thinking([text("H"), text("m.")]), text("Yes.")]}, "Yes.", "Hm."),
        ({"content": [thinking([text("Hm.")])]}, "", "Hm."),
        ({"content": [thinking("Hm.")], "reasoning_content": "So."}, "", "So."),
        ({"content": [thinking(7), thinking([7, text(7)]), thinking(None), 7, None]}, "", ""),
    ],
)
def test_text_and_thinking_are_found_in_a_whole_answer_and_in_a_piece_of_one(
    message: dict[str, Any], answer: str, reasoning: str
) -> None:
    for place, read in (("message", CHAT.read_answer), ("delta", CHAT.read_event)):
        piece = read({"choices": [{place: message, "finish_reason": "stop"}]})
        assert (piece.text, piece.reasoning) == (answer, reasoning)
