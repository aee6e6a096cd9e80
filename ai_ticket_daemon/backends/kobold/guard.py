"""Watching and stopping a generation on KoboldCPP."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.kobold.abort import (
    ABORT_BOUND_SECONDS,
    AbortEnd,
    abort_reason,
    abort_until,
)
from ai_ticket_daemon.backends.kobold.check import read_text
from ai_ticket_daemon.backends.kobold.perf import read_perf
from ai_ticket_daemon.backends.kobold.usage import statistics
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen, SlotEnd
from ai_ticket_daemon.backends.tokens import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.backends.generation_stream import GenerationStream
    from ai_ticket_daemon.backends.kobold.abort import AbortObserver
    from ai_ticket_daemon.backends.kobold.reading import Reading
    from ai_ticket_daemon.backends.tokens import TokenCounter
    from ai_ticket_daemon.backends.transport.wire import Wire

_CONFIRM_SECONDS = 1.0
"""Between two looks that have to agree before a request is given up as lost."""
_LOOK_TIMEOUT_SECONDS = 2.0
_AT_ONCE_SECONDS = 1.0
"""Within that a server stops that writes; else it reads a prompt, which is told then, or hangs."""
_COUNT_SECONDS = 1.0
"""How long counting what is thrown away may take; its slot is not free as long."""
_SILENT = frozenset({Seen.NO_REPLY, Seen.CONNECT_TIMEOUT})
_NOTHING_TO_ABORT = frozenset({Seen.LOST, Seen.SILENT_STREAM, Seen.NO_REPLY})
_ABORT_BOUNDS_SECONDS: Mapping[Seen | None, float] = {
    Seen.IDLE_TIMEOUT: 2.0,
    Seen.FIRST_TOKEN_TIMEOUT: 3.0,
}
"""Shorter where the client still waits: if it does not help, another server is tried."""


class KoboldGuard:
    """Guards one generation.

    Args:
        wire: leads to the server.
        genkey: names the generation.
        counter: counts what a generation had made when it was stopped.
        batches: whether the server makes several generations at once; then it does what an abort
            asks for to none of them, and its statistics are nobody's.
        look_seconds: between two looks at a generation that goes on.
        on_abort: is told of an abort.
        reading: how long the prompt may be read.
    """

    def __init__(
        self,
        wire: Wire,
        genkey: str,
        *,
        counter: TokenCounter,
        batches: bool,
        look_seconds: float,
        on_abort: AbortObserver,
        reading: Reading,
    ) -> None:
        self._wire = wire
        self._genkey = genkey
        self._counter = counter
        self._batches = batches
        self._look_seconds = look_seconds
        self._on_abort = on_abort
        self._reading = reading
        self._characters = 0
        self._idle_looks = 0
        self._silent_looks = 0
        self._timeout_seconds = min(look_seconds, _LOOK_TIMEOUT_SECONDS)

    async def look(self, generation: GenerationStream) -> Seen | float:
        """See :class:`Guard`: a plain generation shows no progress by itself, so it is asked for.

        A server that does nothing while a request waits for its first byte has lost it; one that
        does not even answer what needs no slot has frozen.
        """
        in_doubt, generation.in_doubt = generation.in_doubt, False
        if generation.sent_at is None:
            return self._look_seconds
        if not in_doubt and (
            generation.answering_plainly
            or (generation.stream and generation.progress_at is not None)
        ):
            return math.inf  # What comes, or does not come, over the wire says it all.
        progress_at = generation.progress_at
        try:
            if not generation.stream and await self._advanced(generation):
                generation.note_progress()
                self._idle_looks = self._silent_looks = 0
                return self._look_seconds
            perf = await read_perf(self._wire, timeout_seconds=self._timeout_seconds)
        except AttemptFailed as failure:
            if failure.observation.seen not in _SILENT or generation.progress_at != progress_at:
                return self._look_seconds
            self._silent_looks += 1
            # In doubt, a probe has met with silence before.
            return Seen.NO_REPLY if in_doubt or self._silent_looks > 1 else _CONFIRM_SECONDS
        self._silent_looks = 0
        streaming = generation.stream and generation.progress_at is not None
        if not perf.idle or perf.queue > 0 or streaming:
            self._idle_looks = 0
            return self._look_seconds
        self._idle_looks += 1
        if self._idle_looks < 2:
            return _CONFIRM_SECONDS
        return Seen.SILENT_STREAM if generation.answering else Seen.LOST

    async def stop(self, generation: GenerationStream, reason: Seen | None) -> SlotEnd:
        """See :class:`Guard`; takes ``ABORT_BOUND_SECONDS`` at the most, and two short calls."""
        if generation.sent_at is None or reason in _NOTHING_TO_ABORT:
            return SlotEnd.FREE  # There is nothing to abort, only a connection to close.
        if self._batches:
            generation.close()
            with trio.CancelScope(shield=True):
                await generation.finished.wait()
            end = AbortEnd(SlotEnd.UNSEEN)
            self._on_abort(abort_reason(reason), end)
            return end.slot
        end = await self._abort_for(
            generation,
            generation.sent_at,
            _ABORT_BOUNDS_SECONDS.get(reason, ABORT_BOUND_SECONDS),
            lambda end: self._on_abort(abort_reason(reason), replace(end, over=False)),
        )
        self._on_abort(abort_reason(reason), end)
        if end.slot is SlotEnd.FREE and generation.received.tokens:
            await self._count(generation)
        return end.slot

    async def _abort_for(
        self,
        generation: GenerationStream,
        sent_at: float,
        bound_seconds: float,
        on_reading: Callable[[AbortEnd], None],
    ) -> AbortEnd:
        """Abort the generation; ``on_reading`` is called as soon as it shows that it reads on."""
        until = trio.current_time() + bound_seconds
        shown = False
        while True:
            left = max(0.0, until - trio.current_time())
            seconds = left if shown else min(left, _AT_ONCE_SECONDS)
            end = await self._abort(generation, sent_at, seconds)
            if end.slot is SlotEnd.READING and not shown:
                shown = True
                on_reading(end)
            if end.slot is SlotEnd.FREE or trio.current_time() >= until:
                return end

    async def _abort(
        self, generation: GenerationStream, sent_at: float, bound_seconds: float
    ) -> AbortEnd:
        """Abort the generation, and tell a server that reads on from one that does not stop."""
        if await abort_until(
            generation.finished, self._wire, self._genkey, bound_seconds=bound_seconds
        ):
            return AbortEnd()
        left = self._reading.left_seconds(sent_at, trio.current_time())
        if generation.progress_at is None and left > 0 and not await self._wrote(generation):
            return AbortEnd(SlotEnd.READING, left)
        return AbortEnd(SlotEnd.TAKEN)

    async def _wrote(self, generation: GenerationStream) -> bool:
        """Whether there is any text, or it cannot be known; a plain generation has to be asked."""
        if generation.stream:
            return False
        wrote = True
        with trio.CancelScope(shield=True), suppress(AttemptFailed):
            await self._advanced(generation)
            wrote = self._characters > 0
        return wrote

    async def _count(self, generation: GenerationStream) -> None:
        """Count what a generation had made when it was stopped; else the estimate stays.

        A plain one answers with its text when stopped. What a stream sends then may be the text of
        somebody else.
        """
        completion = generation.completion
        with trio.move_on_after(_COUNT_SECONDS, shield=True):
            try:
                ended_at, began_at = generation.ended_at, generation.began_at
                perf = await statistics(self._wire, ended_at, began_at)
                if perf is not None and perf.last_token_count > 0:
                    generation.received.note(perf.last_token_count)
                elif completion is not None and not generation.stream:
                    text = completion.reasoning + completion.text
                    generation.received.note(await self._counter.count(text, begin=False))
            except AttemptFailed:
                return

    async def _advanced(self, generation: GenerationStream) -> bool:
        """Whether the generation has more text than at the last look."""
        text = await read_text(
            self._wire,
            self._genkey,
            max_bytes=generation.bounds.text,
            timeout_seconds=self._timeout_seconds,
        )
        before, self._characters = self._characters, len(text)
        generation.received.note(estimate_tokens(text), estimated=True)
        return self._characters > before
