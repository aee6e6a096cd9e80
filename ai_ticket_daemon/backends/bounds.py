"""How long an answer may be: what ``max_tokens`` can need, and nothing that is held without use.

A completion is as long as its tokens. What comes around it is the same for all: the frame of the
JSON, and of a server that echoes what it was asked the request itself.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_BYTES = 16 * 1024 * 1024
"""Of a plain answer, and of the text of a stream, whatever was asked for."""
SHORT_ANSWER_BYTES = 512 * 1024
"""Of an answer that needs no generation slot: health, model, context."""
MOST_PARTS = 150_000
"""Values in one JSON text: reading more of them would hold up everything else."""

FRAME_BYTES = 64 * 1024
TOKEN_BYTES = 128
"""Of one token's text. Four are usual; escaped, one character takes six, a rare one twelve."""
EVENT_BYTES = 2 * 1024
"""Of the event of a stream that carries one token."""
ECHO_TIMES = 6
"""How much longer the request may be as an escaped text in the answer."""


@dataclass(frozen=True, slots=True)
class AnswerBounds:
    """The bounds of the answer to one generation, in bytes.

    ``text`` is what is kept of it: of a plain answer its body, of a stream its text, and each of
    its events. ``stream`` is what comes over the wire of a stream, whatever is in it.
    """

    text: int
    stream: int


def answer_bounds(max_tokens: int, request_bytes: int) -> AnswerBounds:
    """Return the bounds of an answer.

    Args:
        max_tokens: as many tokens were asked for.
        request_bytes: the length of the request's body.
    """
    fixed = FRAME_BYTES + ECHO_TIMES * request_bytes
    return AnswerBounds(
        text=min(MOST_BYTES, fixed + TOKEN_BYTES * max_tokens),
        stream=fixed + (TOKEN_BYTES + EVENT_BYTES) * max_tokens,
    )
