"""Thinking that the limit cut short: a plain answer gives it as its text, without its mark.

The server still has the text as the model made it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.completion_text import CompletionText
from ai_ticket_daemon.backends.finish import LENGTH
from ai_ticket_daemon.backends.kobold.check import read_text
from ai_ticket_daemon.backends.observation import AttemptFailed

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation_stream import Completion
    from ai_ticket_daemon.backends.transport.wire import Wire


async def part_unfinished(
    completion: Completion, wire: Wire, genkey: str, *, max_bytes: int
) -> Completion:
    """Return a completion with its text as thinking, if it is that; else as it is.

    Args:
        completion: what a server that parts thinking in chats answered, not streamed.
        wire: leads to the server.
        genkey: names the generation.
        max_bytes: of the text, at the most.
    """
    if completion.finish_reason != LENGTH or completion.reasoning or not completion.text:
        return completion
    try:
        made = await read_text(wire, genkey, max_bytes=max_bytes)
    except AttemptFailed:
        return completion
    text = CompletionText((), None)
    for _ in (*text.take(made, ""), *text.finish()):
        pass
    if text.answer or not text.reasoning:
        return completion
    return replace(completion, text="", reasoning=text.reasoning)
