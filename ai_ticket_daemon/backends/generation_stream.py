"""One generation on the wire: sent, and read to its end.

The reading runs in a task of its own which no cancellation of the caller reaches: a server is made
to stop generating by words (see ``abort.py``), and goes on being read, and discarded, until it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.bounds import answer_bounds
from ai_ticket_daemon.backends.completion_text import CompletionText
from ai_ticket_daemon.backends.finish import STOP, settle_reason
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.text.reasoning import opened_mark
from ai_ticket_daemon.backends.transport.replies import (
    parse_json,
    refuse_encoded,
    refuse_error,
    refuse_error_status,
)
from ai_ticket_daemon.backends.transport.sse import Event, EventStream, EventTooLong
from ai_ticket_daemon.events.reasoning import ReasoningText

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ai_ticket_daemon.backends.dialects import Piece, WireDialect
    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.transport.answer import Answer
    from ai_ticket_daemon.backends.transport.wire import Wire
    from ai_ticket_daemon.events.outcome import Usage


_REFUSED = frozenset({*range(400, 500), 503, 529})
"""What a server answers that has not begun to generate."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came over the wire, ``stopped`` if a stop string was cut off here.

    ``characters`` is how long the text was as the server sent it, thinking, stop strings and all.
    """

    text: str = field(repr=False)
    finish_reason: str
    usage: Usage | None
    stopped: bool
    reasoning: str = field(default="", repr=False)
    characters: int = 0

    @property
    def was_empty(self) -> bool:
        """Whether the server gave no text at all."""
        return self.characters == 0

    def bill(self, usage: Usage) -> Usage:
        """Return the usage with the tokens of the thinking, if there was any."""
        if not self.reasoning or usage.reasoning_tokens is not None:
            return usage
        share = len(self.reasoning) / (len(self.text) + len(self.reasoning))
        return replace(usage, reasoning_tokens=round(share * usage.completion_tokens))


class GenerationStream:
    """One generation request and its answer.

    Args:
        wire: leads to the server.
        dialect: how the answer is to be read.
        request: what is to be made.
        content: the JSON body that says so in the dialect; it bounds the answer, too.
        on_delta: is given the text as it comes.
    """

    def __init__(
        self,
        wire: Wire,
        dialect: WireDialect,
        request: GenerationRequest,
        content: bytes,
        *,
        on_delta: Callable[[str], None] | None,
    ) -> None:
        self._wire = wire
        self._headers = request.headers
        self._dialect = dialect
        self._content = content
        self._on_delta = on_delta
        self._discarding = False
        self.bounds = answer_bounds(request.sampling.max_tokens, len(content))
        self._text = CompletionText(dialect.stops(request), opened_mark(dialect.end(request)))
        self._passes_reasoning = request.reasoning
        self._scope = trio.CancelScope(shield=True)
        self.stream = request.stream
        self.received = request.received
        self.started_at = trio.current_time()
        self.sent_at: float | None = None
        self.began_at: float | None = None
        self.progress_at: float | None = None
        self.ended_at = math.inf
        self.answering = False
        self.passed_on = False
        self.finished = trio.Event()
        self.in_doubt = False
        self.looking: trio.CancelScope | None = None
        self._waiting: trio.CancelScope | None = None
        self.completion: Completion | None = None
        self.error: Exception | None = None

    @property
    def answering_plainly(self) -> bool:
        """Whether a plain answer is on its way: the generation behind it is over."""
        return self.answering and not self.stream

    async def run(self) -> None:
        """Send and read until the answer ends, keep what came of it, and set ``finished``."""
        with self._scope:
            try:
                self.completion = await self._run()
            # Carried to the task that waits, which knows what to do about it.
            except Exception as error:  # noqa: BLE001
                self.error = error
        self.ended_at = trio.current_time()
        self.finished.set()
        if self.looking is not None:
            self.looking.cancel()

    def doubt(self) -> None:
        """Have the server looked at now: others found it silent."""
        self.in_doubt = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def wait_until(self, deadline: float) -> None:
        """Wait for the end, for a doubt, or for a time on trio's clock, whichever comes first."""
        with trio.CancelScope(deadline=deadline) as self._waiting:
            await self.finished.wait()
        self._waiting = None

    def note_progress(self) -> None:
        """Note that the server has made something, for the first time or once more."""
        self.progress_at = trio.current_time()
        if self.began_at is None:
            self.began_at = self.progress_at

    @property
    def text_so_far(self) -> str:
        """What has come, the thinking first."""
        return self._text.reasoning + self._text.answer

    @property
    def has_thought(self) -> bool:
        """Whether thinking has come."""
        return bool(self._text.reasoning)

    @property
    def tail(self) -> str:
        """The end of what has come, as the server sent it."""
        return self._text.tail

    def end_as(self, finish_reason: str, usage: Usage | None) -> Completion:
        """Return what came as a completion, though the server did not say that it is one."""
        return self._completion(finish_reason, usage)

    def discard(self) -> None:
        """Pass nothing more on: what comes after an abort may be somebody else's text."""
        self._on_delta = None
        self._discarding = True

    def close(self) -> None:
        """Give up and close the connection."""
        self._scope.cancel()

    async def _run(self) -> Completion:
        path = self._dialect.stream_path if self.stream else self._dialect.path
        answer = await self._wire.send(
            "POST", path, self._content, on_send=self._mark_sent, headers=self._headers
        )
        try:
            if answer.status in _REFUSED:
                self.received.note(0)
            await refuse_error_status(answer)
            refuse_encoded(answer)
            self.answering = True
            if self.stream and not _is_json(answer):
                return await self._read_stream(answer)
            return await self._read_plain(answer)
        finally:
            await answer.aclose()

    def _mark_sent(self) -> None:
        self.sent_at = trio.current_time()
        self.received.note(0 if self.stream else None)

    async def _read_plain(self, answer: Answer) -> Completion:
        piece = self._dialect.read_answer(parse_json(await answer.read_all(self.bounds.text)))
        self._take(piece)
        tokens = self._text.tokens
        self.received.note(tokens, estimated=tokens > 0)
        return self._completion(piece.finish_reason or STOP, piece.usage)

    async def _read_stream(self, answer: Answer) -> Completion:
        events = EventStream(self.bounds.text)
        finish_reason: str | None = None
        usage: Usage | None = None
        while not events.done:
            chunk = await answer.read_some(self.bounds.stream)
            try:
                found = events.feed(chunk) if chunk else events.close()
            except EventTooLong:
                raise AttemptFailed.seen(Seen.TOO_LARGE) from None
            for event in found:
                piece = self._read_event(event)
                finish_reason = piece.finish_reason or finish_reason
                usage = piece.usage or usage
                if piece.text or piece.reasoning:
                    self.note_progress()
                self._take(piece)
        if finish_reason is None:
            raise AttemptFailed.seen(Seen.CUT)
        return self._completion(finish_reason, usage)

    def _completion(self, finish_reason: str, usage: Usage | None) -> Completion:
        text = self._text
        reason = settle_reason(finish_reason, has_text=text.answer_characters > 0)
        self._pass_on(text.finish())
        return Completion(text.answer, reason, usage, text.stopped, text.reasoning, text.characters)

    def _read_event(self, event: Event) -> Piece:
        try:
            value = parse_json(event.data)
        except AttemptFailed as failure:
            if event.is_error and failure.observation.seen is Seen.NOT_JSON:
                refuse_error(event.data.decode(errors="replace"), called_error=True)
            raise
        if event.is_error:
            refuse_error(value, called_error=True)
        return self._dialect.read_event(value)

    def _take(self, piece: Piece) -> None:
        if not piece.text and not piece.reasoning:
            return
        more = len(piece.text) + len(piece.reasoning)
        if self._text.characters + more > self.bounds.text:
            raise AttemptFailed.seen(Seen.TOO_LARGE)
        self._pass_on(self._text.take(piece.text, piece.reasoning))
        if not self._discarding:
            self.received.note(self._text.tokens, estimated=True)

    def _pass_on(self, parts: Iterable[str | ReasoningText]) -> None:
        for part in parts:
            wanted = self._passes_reasoning or not isinstance(part, ReasoningText)
            if wanted and self.stream and self._on_delta is not None:
                self.passed_on = True
                self._on_delta(part)


def _is_json(answer: Answer) -> bool:
    """Whether a server that was asked for a stream answers plainly, such as with an error."""
    kind: str = answer.headers.get("content-type", "")
    return kind.partition(";")[0].strip().casefold() == "application/json"
