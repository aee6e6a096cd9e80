"""Pseudo-text as a pure function of the request, and the engine that writes it token by token."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .faults import Faults
    from .settings import KoboldSettings

__all__ = ["Engine", "Plan", "answer_mark", "expected_completion", "plan_answer", "tokenize"]

_TOKEN = re.compile(r"<\|im_(?:start|end)\|>|</?think>| ?[A-Za-z]+|\d|\s|.", re.DOTALL)
_WORD = re.compile(r"\s*\S+|\s+$")
THINKING_TOKENS = 8
"""How many words a model that thinks thinks."""
# A prime number of words, so that every step width visits all of them.
_WORDS = tuple(
    re.findall(
        r" \S+",
        " the ticket says that a printer on floor two stopped after lunch and nobody could print"
        " until someone from support restarted it which helped for one hour only, please check it",
    )
)

_THOUGHT = ("<think>", *_WORDS[:THINKING_TOKENS], "</think>")

STOP_NONE, STOP_LIMIT, STOP_END_OF_TEXT, STOP_STRING = -1, 0, 1, 2


def tokenize(text: str) -> list[str]:
    """Cut text into tokens: words with the space before them, digits and signs one by one."""
    return _TOKEN.findall(text)


def answer_mark(subject: str) -> str:
    """The first token of every answer: a short digest of the last user message or prompt."""
    return f"[{blake2b(subject.encode('utf-8', 'replace'), digest_size=4).hexdigest()}]"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole answer, known before its first token is shown."""

    tokens: tuple[str, ...]
    text: str
    """What the finished answer reads: stop string cut off or kept, as asked."""
    stop_reason: int
    stops: tuple[str, ...] = ()
    """Stop strings that must not be shown, not even their first letters."""

    def shown(self, produced: int) -> str:
        """The part of the text that a stream may show after this many tokens."""
        if produced >= len(self.tokens):
            return self.text
        text = "".join(self.tokens[:produced])
        return text[: len(text) - _held_back(text, self.stops)]


def _held_back(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of the text could be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


def plan_answer(
    subject: str,
    *,
    settings: KoboldSettings,
    max_tokens: int,
    seed: int = -1,
    stops: tuple[str, ...] = (),
    trim_stop: bool = False,
    ban_end_of_text: bool = False,
    thinks: bool = False,
    literal: str | None = None,
) -> Plan:
    """Write the answer to a subject: equal arguments give equal answers.

    Args:
        subject: Last user message, or the prompt.
        settings: Kind and natural length of answers.
        max_tokens: Most tokens to write; 0 or less gives an empty answer.
        seed: Changes the words if positive. Unlike the real server's, an answer without a seed
            does not change with the clock.
        stops: Strings that end the answer.
        trim_stop: Cut the stop string off instead of keeping it.
        ban_end_of_text: Write up to the limit.
        thinks: Think before the answer, between marks.
        literal: The one text that may be written.
    """
    if max_tokens <= 0:
        return Plan((), "", STOP_LIMIT)
    mark = answer_mark(subject)
    if literal is not None:
        natural = tokenize(literal)
    elif settings.reply == "echo":
        natural = _WORD.findall(subject) or [mark]
        if ban_end_of_text:
            natural *= math.ceil(max_tokens / len(natural))
    else:
        number = int(mark[1:-1], 16) + 2_654_435_761 * max(seed, 0)
        least, most = settings.natural_tokens
        length = max_tokens if ban_end_of_text else least + number % (most - least + 1)
        length = min(length, max_tokens + 1)
        count, step, at = len(_WORDS), number // 7 % (len(_WORDS) - 1) + 1, number % len(_WORDS)
        natural = [mark, *(_WORDS[(at + step * i) % count] for i in range(length - 1))]
    if thinks:
        natural = [*_THOUGHT, *natural]
    reason = STOP_END_OF_TEXT if len(natural) <= max_tokens else STOP_LIMIT
    if ban_end_of_text:
        reason = STOP_LIMIT
    tokens = natural[:max_tokens]
    text = "".join(tokens)
    hits = [(text.find(stop) + len(stop), stop) for stop in stops if stop in text]
    if hits:
        end, stop = min(hits)
        used = 0
        for size, token in enumerate(tokens, 1):
            used += len(token)
            if used >= end:
                tokens = tokens[:size]
                break
        text = text[: end - len(stop)] if trim_stop else text[:used]
        reason = STOP_STRING
    return Plan(tuple(tokens), text, reason, stops if trim_stop else ())


def expected_completion(
    subject: str,
    *,
    settings: KoboldSettings,
    max_tokens: int,
    seed: int = -1,
    stops: tuple[str, ...] = (),
    trim_stop: bool = True,
) -> str:
    """The text a server with these settings answers; chat answers always have stops trimmed."""
    plan = plan_answer(
        subject,
        settings=settings,
        max_tokens=max_tokens,
        seed=seed,
        stops=stops,
        trim_stop=trim_stop,
    )
    return plan.text


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens two texts have in common from their beginning."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class Engine:
    """The text generator of one server process: token buffer, abort flag and last figures."""

    def __init__(
        self, settings: KoboldSettings, faults: Faults, changed: Callable[[], None]
    ) -> None:
        self.running = False
        self.produced = 0
        self.plan = Plan((), "", STOP_NONE)
        self.aborted = False
        self.stop_reason = STOP_NONE
        self.total_generations = 0
        self.last_process_ms = 0.0
        self.last_eval_ms = 0.0
        self.last_process_seconds = 0.0
        self.last_eval_seconds = 0.0
        self.last_input_count = 0
        self.last_token_count = 0
        self.last_seed = -1
        self.last_seconds = 0.0
        self._settings = settings
        self._faults = faults
        self._changed = changed
        self._abort = trio.Event()
        self._started = 0.0
        self._prompt_tokens = 0
        self._to_read = 0
        self._prompt: Sequence[str] = ()
        self._context: Sequence[str] = ()

    @property
    def to_read(self) -> int:
        """How many tokens of the prompt are not known from the generation before."""
        return self._to_read

    @property
    def text(self) -> str:
        """The text of the running generation so far, or of the last one."""
        if self.running:
            return self.plan.shown(self.produced)
        if self.produced < len(self.plan.tokens):
            return "".join(self.plan.tokens[: self.produced])
        return self.plan.text

    def abort(self) -> None:
        """Ask the running generation to end; forgotten if nothing runs."""
        if self.running:
            self.aborted = True
            self._abort.set()
            self._faults.wake()

    def begin(self, plan: Plan, prompt_tokens: int, seed: int, prompt: Sequence[str] = ()) -> bool:
        """Start writing a plan; true if it is finished already because nothing takes time.

        Of a ``prompt`` that begins as the text before it did, with its answer, only the rest is
        read, and the last token at the least.
        """
        known = _common(self._context, prompt)
        self._prompt, self._prompt_tokens = prompt, prompt_tokens
        self._to_read = max(1, len(prompt) - known) if known else prompt_tokens
        self.plan = plan
        self.produced = 0
        self.aborted = False
        self.running = True
        self.last_seed = seed
        self._started = trio.current_time()
        self._abort = trio.Event()
        if self._faults.hinder_engine or self._prompt_seconds() > 0:
            return False
        if self._settings.tokens_per_second != math.inf:
            return False
        self.produced = len(plan.tokens)
        self._finish(self._started)
        return True

    async def write(self) -> None:
        """Read the prompt, then write the plan that was begun, at the speed of the moment."""
        if self.running:
            try:
                await self._read_prompt()
                prompt_ended = trio.current_time()
                await self._write_tokens(prompt_ended)
                self._finish(prompt_ended)
            finally:
                self.running = False

    def _finish(self, prompt_ended: float) -> None:
        now = trio.current_time()
        self.running = False
        self.total_generations += 1
        self.stop_reason = STOP_LIMIT if self.aborted else self.plan.stop_reason
        self.last_token_count = self.produced
        if self.produced:
            self._context = (*self._prompt, *self.plan.tokens[: self.produced])
        self.last_process_ms = (prompt_ended - self._started) * 1000 / max(self._to_read, 1)
        self.last_eval_ms = (now - prompt_ended) * 1000 / max(self.produced, 1)
        self.last_seconds = now - self._started
        self.last_process_seconds = self.last_process_ms * self._prompt_tokens / 1000
        self.last_eval_seconds = now - prompt_ended
        self.last_input_count = self._prompt_tokens

    def _prompt_seconds(self) -> float:
        fixed = self._faults.prompt_seconds
        if fixed is None:
            fixed = self._settings.prompt_seconds
        if fixed is not None:
            return fixed
        return self._to_read / self._settings.prompt_tokens_per_second

    async def _read_prompt(self) -> None:
        seconds = self._prompt_seconds()
        known = len(self._prompt) - self._to_read
        batches = max(1, math.ceil(self._to_read / self._settings.prompt_batch_tokens))
        for batch in range(1, batches + 1):
            await self._faults.thawed()
            await trio.sleep_until(self._started + seconds * batch / batches)
            if self.aborted:
                read = min(self._to_read, batch * self._settings.prompt_batch_tokens)
                self._context = self._prompt[: known + read]
                return
        self._context = self._prompt

    async def _write_tokens(self, due: float) -> None:
        for number in range(len(self.plan.tokens)):
            if self._faults.hinder_engine:
                await self._faults.thawed()
                await self._faults.unstalled(number, self._abort)
                due = max(due, trio.current_time())
            speed = self._faults.tokens_per_second or self._settings.tokens_per_second
            due += 1 / speed
            if due > trio.current_time():
                with trio.move_on_at(due):
                    await self._abort.wait()
            if self.aborted:
                return
            self.produced = number + 1
            self._changed()
