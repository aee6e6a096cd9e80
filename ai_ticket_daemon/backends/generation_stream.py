"""One generation on the wire: sent, and read to its end.

The reading runs in a task of its own which no cancellation of the caller reaches: a server is made
to stop generating by words (see ``abort.py``), and goes on being read, and discarded, until it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.bounds import answer_bounds
from ai_ticket_daemon.backends.cleaning import CharacterJoiner, without_halves
from ai_ticket_daemon.backends.finish import STOP, settle_reason
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.stops import StopCutter
from ai_ticket_daemon.backends.tokens import estimate_tokens
from ai_ticket_daemon.backends.transport.replies import (
    parse_json,
    refuse_encoded,
    refuse_error,
    refuse_error_status,
)
from ai_ticket_daemon.backends.transport.sse import Event, EventStream, EventTooLong

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.dialects import Piece, WireDialect
    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.transport.answer import Answer
    from ai_ticket_daemon.backends.transport.wire import Wire
    from ai_ticket_daemon.events.outcome import Usage


_REFUSED = frozenset({*range(400, 500), 503, 529})
"""What a server answers that has not begun to generate."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came over the wire, ``stopped`` if a stop string was cut off here."""

    text: str = field(repr=False)
    finish_reason: str
    usage: Usage | None
    stopped: bool
    was_empty: bool


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
        self._joiner = CharacterJoiner()
        self._cutter = StopCutter(dialect.stops(request))
        self._scope = trio.CancelScope(shield=True)
        self.stream = request.stream
        self.received = request.received
        self.started_at = trio.current_time()
        self.sent_at: float | None = None
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
        whole = without_halves(piece.text)
        self.received.note(estimate_tokens(whole), estimated=bool(whole))
        reason = settle_reason(piece.finish_reason or STOP, has_text=bool(whole))
        text = self._cutter.feed(whole) + self._cutter.finish()
        if self.stream and text and not self._discarding:
            self._pass_on(text, [])
        return Completion(text, reason, piece.usage, self._cutter.hit, not whole)

    async def _read_stream(self, answer: Answer) -> Completion:
        events = EventStream(self.bounds.text)
        texts: list[str] = []
        finish_reason: str | None = None
        usage: Usage | None = None
        characters = 0
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
                if piece.text:
                    characters += len(piece.text)
                    if characters > self.bounds.text:
                        raise AttemptFailed.seen(Seen.TOO_LARGE)
                    self._take(piece.text, texts)
        if finish_reason is None:
            raise AttemptFailed.seen(Seen.CUT)
        reason = settle_reason(finish_reason, has_text=characters > 0)
        held = self._cutter.feed(self._joiner.finish()) + self._cutter.finish()
        if held:
            self._pass_on(held, texts)
        return Completion("".join(texts), reason, usage, self._cutter.hit, characters == 0)

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

    def _take(self, text: str, texts: list[str]) -> None:
        self.progress_at = trio.current_time()
        if not self._discarding:
            self.received.note((self.received.tokens or 0) + 1)
        if text := self._cutter.feed(self._joiner.feed(text)):
            self._pass_on(text, texts)

    def _pass_on(self, text: str, texts: list[str]) -> None:
        texts.append(text)
        if self._on_delta is not None:
            self.passed_on = True
            self._on_delta(text)


def _is_json(answer: Answer) -> bool:
    """Whether a server that was asked for a stream answers plainly, such as with an error."""
    kind: str = answer.headers.get("content-type", "")
    return kind.partition(";")[0].strip().casefold() == "application/json"
