"""Parting the thinking of a model from its answer, for servers that leave both in one text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ai_ticket_daemon.events.reasoning import ReasoningText

if TYPE_CHECKING:
    from collections.abc import Iterator


class Marks(NamedTuple):
    """How a family of models marks its thinking, which can begin at the start of a text only.

    Some write a ``heading`` before the answer, and an ``end`` behind one with a heading.
    """

    opening: str
    close: str
    heading: str = ""
    end: str = ""


MARKS = (
    Marks("<think>", "</think>"),  # most: DeepSeek, Qwen, GLM, MiniMax, Ring, Nemotron
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),  # EXAONE Deep
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<longcat_think>", "</longcat_think>"),
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("◁think▷", "◁/think▷"),  # Kimi-VL
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<unused94>thought", "<unused95>"),  # MedGemma
    Marks(  # OpenThinker, Sky-T1
        "<|begin_of_thought|>",
        "<|end_of_thought|>",
        "<|begin_of_solution|>",
        "<|end_of_solution|>",
    ),
    Marks(  # Command A Reasoning
        "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"
    ),
    Marks(  # gpt-oss
        "<|channel|>analysis<|message|>",
        "<|end|>",
        "<|channel|>final<|message|>",
        "<|return|>",
    ),
)
"""The known ones. What an answer may begin with on request, such as ``<answer>``, is none."""
_TURN = "<|start|>assistant"
"""gpt-oss begins each part with it."""
_LEAD = re.compile(rf"(?:\s|[\ufeff\u200b]|{re.escape(_TURN)})*")
"""What may stand before a mark: blanks, a byte order mark."""
_BEGINNINGS = (_TURN, *(word for m in MARKS for word in (m.opening, m.heading) if word))
_MOST_BLANKS = 256
"""So many are held back, at the most, until it is known what follows them."""
_BETWEEN_THOUGHTS = "\n\n"


def opened_mark(prompt: str) -> str | None:
    """Return the mark that ends the thinking which a prompt begins at its end; None if it does not.

    The model then goes on thinking without a mark of its own.
    """
    end = prompt[-64:].rstrip()
    return next((marks.close for marks in MARKS if end.endswith(marks.opening)), None)


class ReasoningSplitter:
    """Parts a text that comes in pieces, wherever those are cut, even within a mark.

    Blanks around the marks belong to neither part. Where thinking follows thinking, both are that.

    Args:
        close: the mark that ends the thinking, if the text begins within it.
    """

    def __init__(self, close: str | None = None) -> None:
        self._close = close
        self._end = ""
        self._undecided = close is None
        self._parted = close is not None
        self._at_start = True
        self._has_thought = False
        self._held = ""

    def feed(self, text: str) -> Iterator[str | ReasoningText]:
        """Yield what is certain to belong to either part; hold back what may be a mark."""
        self._held += text
        while True:
            if self._close is not None:
                yield from self._think(self._close)
                if self._close is not None:
                    return
            elif self._undecided:
                self._decide()
                if self._undecided:
                    return
            else:
                yield from self._answer()
                return

    def finish(self) -> Iterator[str | ReasoningText]:
        """Yield what was held back, now that nothing follows."""
        held, self._held = self._held, ""
        if self._close is not None:
            yield from self._thought(_without_blanks(held))
            return
        if self._undecided and self._parted:
            held = _without_lead(held)
        self._undecided = False
        if held:
            yield held

    def leave(self) -> Iterator[str | ReasoningText]:
        """Yield what was held back; from now on all is answer, since the server parts by itself."""
        if self._close is not None or self._held.strip():
            yield from self.finish()
        self._undecided, self._at_start = False, True
        self._close, self._end, self._held = None, "", ""

    def _decide(self) -> None:
        """Find out whether thinking begins here, or the answer, as soon as that can be told."""
        begun = _without_lead(self._held)
        if not self._parted and len(self._held) - len(begun) > _MOST_BLANKS:
            self._undecided = self._at_start = False
            return
        for marks in MARKS:
            if begun.startswith(marks.opening):
                self._close = marks.close
                self._begin(begun[len(marks.opening) :])
                return
            if marks.heading and begun.startswith(marks.heading):
                self._end = marks.end
                self._begin(begun[len(marks.heading) :])
                return
        may_begin = any(beginning.startswith(begun) for beginning in _BEGINNINGS)
        if self._parted:
            self._held = begun
            self._undecided = may_begin
        elif not may_begin:
            self._undecided = self._at_start = False

    def _begin(self, rest: str) -> None:
        self._held = rest
        self._undecided = False
        self._parted = self._at_start = True

    def _think(self, close: str) -> Iterator[ReasoningText]:
        if self._at_start:
            self._held = self._held.lstrip()
        place = self._held.find(close)
        ended = place >= 0
        last = place if ended else len(self._held) - _begun(self._held, close)
        thought = _without_blanks(self._held[:last])
        self._held = self._held[place + len(close) if ended else len(thought) :]
        if ended:
            self._close, self._undecided = None, True
        yield from self._thought(thought)
        self._at_start = self._at_start or ended

    def _thought(self, text: str) -> Iterator[ReasoningText]:
        if text:
            follows = self._at_start and self._has_thought
            self._at_start, self._has_thought = False, True
            yield ReasoningText(_BETWEEN_THOUGHTS + text if follows else text)

    def _answer(self) -> Iterator[str]:
        text, self._held = self._held, ""
        if self._at_start:
            text = text.lstrip()
        if self._end:
            before, end, behind = text.partition(self._end)
            if end:
                if self._at_start and not before:
                    behind = behind.lstrip()
                text, self._end = before + behind, ""
            else:
                kept = _begun(text, self._end)
                text, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if text:
            self._at_start = False
            yield text


def _without_lead(text: str) -> str:
    lead = _LEAD.match(text)
    return text if lead is None else text[lead.end() :]


def _without_blanks(text: str) -> str:
    """Return a text without the blanks at its end, or the last ones if they are many."""
    blanks = len(text) - len(text.rstrip())
    return text[: len(text) - min(blanks, _MOST_BLANKS)]


def _begun(text: str, mark: str) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    return next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)
