"""What a completion cost: what the server says of it if that can be true, else a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.finish import LENGTH
from ai_ticket_daemon.backends.tokens import estimate_length
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation_stream import Completion

LARGEST_CONTEXT = 2**24
"""In tokens; no model has one of that size."""
_SAME_FOR_ALL = (100, 100)
_LONGEST_CHARACTER = 4
"""In bytes; no token is shorter than a byte."""
_UNSEEN_TOKENS = 16
"""As many may a text have that nobody gets to see: its end, the marks around the thinking."""


def true_usage(completion: Completion, *, max_tokens: int, trusted: bool) -> Usage | None:
    """Return what the server says of the usage, if that can be true.

    Args:
        completion: what came.
        max_tokens: as many tokens were asked for.
        trusted: whether the server counts at all. Old versions of KoboldCPP say the same of every
            completion, which is true of hardly any.
    """
    usage = completion.usage
    if usage is None:
        return None
    if not trusted and (usage.prompt_tokens, usage.completion_tokens) == _SAME_FOR_ALL:
        return None
    can_be_true = can_be_read(usage.prompt_tokens) and can_be_written(
        usage.completion_tokens, completion, max_tokens=max_tokens
    )
    return usage if can_be_true else None


def can_be_read(tokens: int) -> bool:
    """Whether a prompt can have so many tokens: none is empty."""
    return 0 < tokens <= LARGEST_CONTEXT


def can_be_written(tokens: int, completion: Completion, *, max_tokens: int) -> bool:
    """Whether a completion can have so many tokens.

    Not all of them need to be seen: some servers keep the thinking to themselves. Some disregard
    ``max_tokens``.
    """
    if tokens == 0:
        return completion.was_empty
    most = max(max_tokens, _LONGEST_CHARACTER * completion.characters)
    return tokens <= most + _UNSEEN_TOKENS


def estimate_usage(
    completion: Completion, finish_reason: str, *, prompt_tokens: int, max_tokens: int
) -> Usage:
    """Return a guess at what a completion cost, for want of a count."""
    written = min(max_tokens, estimate_length(completion.characters))
    if finish_reason == LENGTH:
        written = max_tokens
    return Usage(prompt_tokens, written, estimated=True)
