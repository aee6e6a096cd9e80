"""Words in a text that a chat template or a server would take for the end of a turn.

A tokenizer that meets ``<|im_end|>`` in a ticket makes the special token of it, and KoboldCPP puts
role markers in the place of ``{{[OUTPUT]}}``: whoever writes a ticket could answer for the model.
One space behind the first character is all it takes to make a text of them again, and both a model
and a person still read the same.

They are looked for in the text as a normalizer might see it, without what cannot be seen and with
plain letters for fullwidth ones, and across the borders of messages, since some templates write
nothing between two of them.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from msgspec import structs

from ai_ticket_daemon.config.backends import EscapedTexts
from ai_ticket_daemon.events.event import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ai_ticket_daemon.events.event import Message

_LONGEST = 64
"""Characters between the brackets of a token; the longest known has 40."""
_PIECE = 16 * 1024
"""Characters that are read at once."""
_ANGLE_NAMES = (
    "s|bos|eos|eod|eot|eop|sop|pad|unk|cls|sep|mask|eoa|eoh|用户|AI"
    "|think|thinking|thought|longcat_think|reasoning"
    "|system|user|assistant|human|bot"
    "|(?:start|end|begin|beginning|fim|tool|extra|reserved|unused|special|seed|image|audio|video"
    "|vision|turn|channel|function)[_:▁][a-z0-9_:▁]{1,48}"
    r"|(?:unused|special|reserved)\d{1,6}"
)
_SQUARE_NAMES = (
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS?|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK"
    "|IMG|IMG_BREAK|IMG_END|BEGIN_AUDIO|AUDIO|PREFIX|MIDDLE|SUFFIX|[gs]?MASK|CLS|SEP|PAD|UNK|BOS"
    "|EOS|MODEL_SETTINGS"
)
_TOKEN = re.compile(
    rf"<\|[^<>\s]{{0,{_LONGEST}}}>"  # <|im_end|>, <|turn>
    rf"|<[^<>|\s]{{1,{_LONGEST}}}\|>"  # <turn|>
    rf"|</?(?:{_ANGLE_NAMES})>"  # <start_of_turn>, </s>
    r"|<</?SYS>>"
    rf"|\[/?(?:{_SQUARE_NAMES})\]"  # [INST]
    rf"|\[\|[^\[\]\s]{{1,{_LONGEST}}}\|\]"  # [|endofturn|]
    r"|\{\{\[[^\[\]{}\s]{1,32}\]\}\}"  # {{[INPUT]}}
    r"|◁/?think▷"
    r"|###[ ]?(?:Instruction|Response|Input|Output|System|User|Human|Assistant)[ ]?:",
    re.IGNORECASE,
)
_BEGINNINGS = "<[{#"
"""What a token in ASCII begins with; other signs may be seen as one of these."""
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""What is shown as nothing without being of the category of format characters."""


def escape(messages: Sequence[Message], texts: EscapedTexts) -> tuple[Message, ...]:
    """Return the messages, with each token in those that ``texts`` names made harmless.

    A token that reaches over several messages is parted in one of those.
    """
    messages = tuple(messages)
    escaped = tuple(_escapes(message.role, texts) for message in messages)
    if not any(escaped):
        return messages
    contents = [message.content for message in messages]
    if not any(map(_may_hold_token, contents)):
        return messages
    places = _places(contents, escaped)
    if not places:
        return messages
    return tuple(
        structs.replace(message, content=_parted(message.content, places[number]))
        if number in places
        else message
        for number, message in enumerate(messages)
    )


def _may_hold_token(text: str) -> bool:
    """Tell, for next to nothing, whether a token may begin in a text; most texts hold none."""
    return not text.isascii() or any(sign in text for sign in _BEGINNINGS)


def _escapes(role: Role, texts: EscapedTexts) -> bool:
    return texts is EscapedTexts.ALL or (texts is EscapedTexts.USER and role is Role.USER)


def _places(contents: Sequence[str], escaped: Sequence[bool]) -> dict[int, set[int]]:
    """Return where a space belongs: for each message the characters that it comes before."""
    # Templates trim what they join.
    trimmed = [content.strip() for content in contents]
    starts = [0, *accumulate(map(len, trimmed))]
    view = _View("".join(trimmed))
    places: dict[int, set[int]] = {}
    for match in _tokens(view.text):
        spot = _spot(view, starts, escaped, match.span())
        if spot is None:
            continue
        number, at = spot
        lead = len(contents[number]) - len(contents[number].lstrip())
        places.setdefault(number, set()).add(lead + at)
    return places


def _spot(
    view: _View, starts: Sequence[int], escaped: Sequence[bool], span: tuple[int, int]
) -> tuple[int, int] | None:
    """Return where a token is parted, as the number of a message and a place in it, if anywhere.

    Within a message it is parted for good. At the end of one, a template may trim the space.
    """
    at_border = None
    before = None
    for seen in range(*span):
        place = view.place(seen)
        number = bisect_right(starts, place) - 1
        if escaped[number]:
            if before is not None and before[0] == number:
                return number, before[1] + 1
            at_border = number, place - starts[number]
        before = number, place - starts[number]
    return at_border


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Yield all tokens; looked for in pieces, since other threads stand still during a search."""
    at = 0
    while at < len(text):
        match = _TOKEN.search(text, at, at + _PIECE + 2 * _LONGEST)
        if match is None:
            at += _PIECE
        else:
            yield match
            at = match.start() + 1  # There may be another one in it.


def _parted(text: str, places: Iterable[int]) -> str:
    cuts = [0, *sorted(places), len(text)]
    return " ".join(text[a:b] for a, b in pairwise(cuts))


class _View:
    """A text as a normalizer might see it, and the way back to the text itself.

    Most of it is done by functions that read a long piece of it at once.
    """

    def __init__(self, text: str) -> None:
        self._seen_at: list[int] = []
        self._places: list[int] = []
        self._lengths: list[int] = []
        if text.isascii():
            self.text = text
            return
        folds = {ord(sign): _fold(sign) for sign in set(text) if not sign.isascii()}
        pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
        self.text = "".join(piece.translate(folds) for piece in pieces)
        uneven = "".join(chr(code) for code, fold in folds.items() if len(fold) != 1)
        if not uneven:
            return
        shift = 0
        for found in re.finditer(f"[{re.escape(uneven)}]", text):
            length = len(folds[ord(found.group())])
            self._seen_at.append(found.start() + shift)
            self._places.append(found.start())
            self._lengths.append(length)
            shift += length - 1

    def place(self, seen: int) -> int:
        """Return where in the text the character stands that is seen at ``seen``."""
        known = bisect_right(self._seen_at, seen) - 1
        if known < 0:
            return seen
        beyond = seen - self._seen_at[known] - self._lengths[known]
        return self._places[known] + (0 if beyond < 0 else beyond + 1)


def _fold(sign: str) -> str:
    if sign in _INVISIBLE or unicodedata.category(sign) in ("Cf", "Mn", "Me"):
        return ""
    return unicodedata.normalize("NFKC", sign)
