"""What a prompt begins with: a digest by which prompts that share a long beginning are known.

A server keeps the prompt it read last, and reads of the next one only what differs.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.event import Role

if TYPE_CHECKING:
    from ai_ticket_daemon.events.event import Event

LONG_CHARACTERS = 256
"""A shorter beginning, some sixty tokens, is read again before it is worth a place in the queue."""

_DIGEST_BYTES = 16


def beginning_of(event: Event) -> bytes | None:
    """Return a digest of what the prompt of ``event`` begins with; None if it is short.

    That is what the system says before anybody else does, if it is long, and the first characters
    of the conversation otherwise.
    """
    system = tuple(takewhile(lambda message: message.role is Role.SYSTEM, event.messages))
    is_long = sum(len(message.content) for message in system) >= LONG_CHARACTERS
    digest = blake2b(digest_size=_DIGEST_BYTES)
    # A template may say at the beginning how much the model is to think.
    digest.update((event.reasoning_effort or "").encode())
    left = LONG_CHARACTERS
    for message in system if is_long else event.messages:
        text = message.content if is_long else message.content[:left]
        left -= len(text)
        digest.update(f"\0{message.role.value}\0".encode())
        # A lone surrogate is no character, and no reason to fail.
        digest.update(text.encode("utf-8", "surrogatepass"))
        if left <= 0 and not is_long:
            break
    return None if left > 0 else digest.digest()
