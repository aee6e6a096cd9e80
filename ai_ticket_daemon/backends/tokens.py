"""Counting tokens with KoboldCPP, whose own ``usage`` is a constant."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from ai_ticket_daemon.backends.bounds import MOST_BYTES, SHORT_ANSWER_BYTES
from ai_ticket_daemon.backends.dialects.kobold import PLACEHOLDERS_STAY
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.text.cleaning import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.backends.transport.wire import Wire
    from ai_ticket_daemon.events.event import Message

TOKENCOUNT_PATH = "/api/extra/tokencount"
# What the server may add around each message, whatever its template, and around the whole.
_MARGIN_PER_MESSAGE = 32
_MARGIN = 128
# What an unknown template usually adds to the markers of KoboldCPP's default, and to the whole:
# some begin with words of their own, such as who the model is.
_TEMPLATE_MARGIN_PER_MESSAGE = 4
_TEMPLATE_MARGIN = 32
_CHARACTERS_PER_TOKEN = 4
_REMEMBERED = 64
_TOKEN_ID_BYTES = 18
"""Of the number of one token and of its text, where the server returns both."""


class _Count(msgspec.Struct):
    value: int | float
    prompt: str | None = None


_decode_count = msgspec.json.Decoder(_Count).decode


@dataclass(frozen=True, slots=True)
class Layout:
    """A conversation as a server lays it out with its template, and the tokens of that."""

    prompt: str = field(repr=False)
    tokens: int


def most_prompt_tokens(messages: Sequence[Message], size_bytes: int) -> int:
    """Return how many tokens a conversation has at most: no token is shorter than a byte."""
    return size_bytes + _MARGIN + _MARGIN_PER_MESSAGE * len(messages)


def template_margin(messages: Sequence[Message]) -> int:
    """Return how many tokens more than counted a conversation may have in an unknown template."""
    return _TEMPLATE_MARGIN + _TEMPLATE_MARGIN_PER_MESSAGE * len(messages)


def estimate_tokens(text: str) -> int:
    """Return a guess at the tokens of a text, for what is too quick to be worth counting."""
    return estimate_length(len(text))


def estimate_length(characters: int) -> int:
    """Return a guess at the tokens of a text of this length."""
    return -(-characters // _CHARACTERS_PER_TOKEN)


class TokenCounter:
    """Counts with one server, one text at a time: parallel counts there corrupt each other."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = trio.Lock()
        self._known: OrderedDict[bytes, int] = OrderedDict()

    async def count(self, text: str, *, begin: bool) -> int:
        """Return the tokens of a text.

        Args:
            text: the text.
            begin: whether it stands at the beginning, where a token for that is added.

        Raises:
            AttemptFailed: the server gave no sensible answer.
        """
        encoded = text.encode()
        key = hashlib.blake2b(encoded, digest_size=16, person=b"%d" % begin).digest()
        async with self._turn:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            value = _read_tokens(await self._ask({"prompt": text, "special": begin}, len(encoded)))
            self._known[key] = value
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return value

    async def lay_out(self, messages: Sequence[Message]) -> Layout:
        """Return the conversation as the server would lay it out; only some servers can tell.

        Raises:
            AttemptFailed: the server gave no sensible answer.
        """
        said = [{"role": m.role.value, "content": m.content} for m in messages]
        size_bytes = sum(len(m.content.encode()) for m in messages)
        async with self._turn:
            count = await self._ask({"messages": said, **PLACEHOLDERS_STAY}, size_bytes)
        if count.prompt is None:
            raise AttemptFailed.seen(Seen.WRONG_SHAPE)
        return Layout(count.prompt, _read_tokens(count))

    async def _ask(self, payload: dict[str, Any], size_bytes: int) -> _Count:
        # Beside the number stand the tokens themselves and the text, not always worth reading.
        max_bytes = SHORT_ANSWER_BYTES + _TOKEN_ID_BYTES * size_bytes
        answer = await self._wire.fetch(
            "POST", TOKENCOUNT_PATH, payload, max_bytes=min(MOST_BYTES, max_bytes)
        )
        try:
            return _decode_count(answer)
        except (msgspec.MsgspecError, RecursionError):
            raise AttemptFailed.seen(Seen.WRONG_SHAPE) from None

    def forget(self) -> None:
        """Forget all counts: the server may have another model now."""
        self._known.clear()


def _read_tokens(count: _Count) -> int:
    value = whole_number(count.value)
    if value is None:
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    return value
