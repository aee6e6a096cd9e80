"""Parting the thinking of a model from its answer, for servers that leave both in one text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.events.reasoning import ReasoningText

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAGS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"))
"""How models mark where thinking begins and ends. It can begin at the start of a text only."""
_MOST_BLANKS = 256
"""So many are held back, at the most, until it is known what follows them."""


def opened_tag(prompt: str) -> str | None:
    """Return the tag that ends the thinking which a prompt begins at its end; None if it does not.

    The model then goes on thinking without a tag of its own.
    """
    end = prompt[-64:].rstrip()
    return next((close for opening, close in _TAGS if end.endswith(opening)), None)


class ReasoningSplitter:
    """Parts a text that comes in pieces, wherever those are cut, even within a tag.

    Blanks around the tags belong to neither part.

    Args:
        close: the tag that ends the thinking, if the text begins within it.
    """

    def __init__(self, close: str | None = None) -> None:
        self._close = close
        self._undecided = close is None
        self._at_start = True
        self._held = ""

    def feed(self, text: str) -> Iterator[str | ReasoningText]:
        """Yield what is certain to belong to either part; hold back what may be a tag."""
        self._held += text
        if self._undecided:
            self._open()
        if self._undecided:
            return
        if self._close is not None:
            yield from self._think(self._close)
        if self._close is None:
            yield from self._answer()

    def finish(self) -> Iterator[str | ReasoningText]:
        """Yield what was held back, now that nothing follows."""
        self._undecided = False
        held, self._held = self._held, ""
        if self._close is not None:
            held = ReasoningText(held.rstrip())
        if held:
            yield held

    def leave(self) -> Iterator[str | ReasoningText]:
        """Yield what was held back; from now on all is answer, since the server parts by itself."""
        if self._close is not None or self._held.strip():
            yield from self.finish()
        self._undecided, self._at_start = False, True
        self._close, self._held = None, ""

    def _open(self) -> None:
        """Find out whether the text begins with thinking, as soon as that can be told."""
        begun = self._held.lstrip()
        for opening, close in _TAGS:
            if begun.startswith(opening):
                self._close, self._undecided = close, False
                self._held = begun[len(opening) :]
                return
        may_begin = any(opening.startswith(begun) for opening, _ in _TAGS)
        if not may_begin or len(self._held) > _MOST_BLANKS:
            self._undecided = self._at_start = False

    def _think(self, close: str) -> Iterator[ReasoningText]:
        if self._at_start:
            self._held = self._held.lstrip()
        place = self._held.find(close)
        ended = place >= 0
        thought = self._held[:place] if ended else self._held
        if ended:
            self._close, self._at_start = None, True
            self._held = self._held[place + len(close) :]
            thought = thought.rstrip()
        else:
            thought = thought[: len(thought) - _begun(thought, close)]
            stripped = thought.rstrip()
            if len(thought) - len(stripped) <= _MOST_BLANKS:
                thought = stripped
            self._held = self._held[len(thought) :]
        if thought:
            self._at_start = ended
            yield ReasoningText(thought)

    def _answer(self) -> Iterator[str]:
        text, self._held = self._held, ""
        if self._at_start:
            text = text.lstrip()
        if text:
            self._at_start = False
            yield text


def _begun(text: str, tag: str) -> int:
    """How many characters at the end of a text may be the beginning of a tag."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
