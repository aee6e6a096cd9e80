"""A conversation as one text, for APIs that take a text.

A single message of the user is sent as it is. Anything else becomes the text KoboldCPP makes of a
conversation by default, so that a server answers alike in all its dialects:

    (blank line)
    ### Instruction:
    (what the system or the user says)
    ### Response:
    (what the assistant says)

and, at the end, an open ``### Response:``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.events.event import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.events.event import Message

_INSTRUCTION = "\n### Instruction:\n"
_RESPONSE = "\n### Response:\n"
MARKERS = ("### Instruction:", "### Response:")
"""Where the model begins to speak for somebody else."""


def is_raw(messages: Sequence[Message]) -> bool:
    """Whether the conversation is sent as a text without markers."""
    return len(messages) == 1 and messages[0].role is Role.USER


def flatten(messages: Sequence[Message]) -> str:
    """Return the prompt of a text dialect."""
    return messages[0].content if is_raw(messages) else with_markers(messages)


def with_markers(messages: Sequence[Message]) -> str:
    """Return the conversation as KoboldCPP writes it down for its model by default."""
    parts = []
    for message in messages:
        parts.append(_RESPONSE if message.role is Role.ASSISTANT else _INSTRUCTION)
        parts.append(message.content)
    parts.append(_RESPONSE)
    return "".join(parts)
