"""The text of a completion as its pieces come in: whole characters, cut at stop strings, parted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.text.cleaning import CharacterJoiner
from ai_ticket_daemon.backends.text.reasoning import ReasoningSplitter
from ai_ticket_daemon.backends.text.stops import StopCutter
from ai_ticket_daemon.backends.tokens import estimate_length
from ai_ticket_daemon.events.reasoning import ReasoningText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TAIL_CHARACTERS = 64


class CompletionText:
    """Takes in what a server sends and gives out what belongs to answer and thinking.

    Args:
        stops: where the text ends, whichever part that is in: the server stopped there as well.
        close: the mark that ends the thinking, if the text begins within it.
    """

    def __init__(self, stops: Sequence[str], close: str | None) -> None:
        self._joiner = CharacterJoiner()
        self._thought_joiner = CharacterJoiner()
        self._cutter = StopCutter(stops)
        self._splitter = ReasoningSplitter(close)
        self._parted = False
        self._pieces = 0
        self._tail, self._tail_is_thought = "", False
        self._answer: list[str] = []
        self._thought: list[str] = []
        self.answer_characters = 0
        """How long the text is that came as the answer, before it was parted."""
        self.thought_characters = 0
        """How long the thinking is that came apart."""

    def take(self, text: str, reasoning: str) -> Iterator[str | ReasoningText]:
        """Take in a piece of both, the thinking first, and yield what is certain by now."""
        self._pieces += 1
        if reasoning:
            self.thought_characters += len(reasoning)
            yield from self._take_thought(self._thought_joiner.feed(reasoning))
        if text:
            self.answer_characters += len(text)
            whole = self._joiner.feed(text)
            self._note_end(whole, is_thought=False)
            if cut := self._cutter.feed(whole):
                yield from self._keep(self._splitter.feed(cut))

    def finish(self) -> Iterator[str | ReasoningText]:
        """Yield what was held back, now that nothing follows."""
        if thought := self._thought_joiner.finish():
            yield from self._take_thought(thought)
        held = self._cutter.feed(self._joiner.finish()) + self._cutter.finish()
        yield from self._keep(self._splitter.feed(held))
        yield from self._keep(self._splitter.finish())

    @property
    def characters(self) -> int:
        """How long all is that came."""
        return self.answer_characters + self.thought_characters

    @property
    def tokens(self) -> int:
        """How many tokens that was, estimated; no piece has less than one."""
        return max(self._pieces, estimate_length(self.characters))

    @property
    def stopped(self) -> bool:
        """Whether a stop string was cut off."""
        return self._cutter.hit

    @property
    def answer(self) -> str:
        """The answer as far as it was given out."""
        return "".join(self._answer)

    @property
    def tail(self) -> str:
        """The end of the answer, or of the thinking if there is no answer yet, as it was sent."""
        return self._tail

    @property
    def reasoning(self) -> str:
        """The thinking as far as it was given out."""
        return "".join(self._thought)

    def _note_end(self, text: str, *, is_thought: bool) -> None:
        before = self._tail if is_thought is self._tail_is_thought else ""
        self._tail, self._tail_is_thought = (before + text)[-TAIL_CHARACTERS:], is_thought

    def _take_thought(self, thought: str) -> Iterator[str | ReasoningText]:
        if not self._parted:
            self._parted = True
            yield from self._keep(self._splitter.leave())
        if not self._thought:
            thought = thought.lstrip()
        if thought:
            self._note_end(thought, is_thought=True)
            yield from self._keep((ReasoningText(thought),))

    def _keep(self, parts: Iterable[str | ReasoningText]) -> Iterator[str | ReasoningText]:
        for part in parts:
            (self._thought if isinstance(part, ReasoningText) else self._answer).append(part)
            yield part
