"""Whether a stream that broke off without saying so was at its end.

Some builds of KoboldCPP close a stream behind the last piece of its text, without the event that
says why it ended. The server itself knows: it is idle, its last generation was this one, and it
tells why that ended. An aborted generation looks like one that reached its limit, except that it
made fewer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.finish import LENGTH, STOP
from ai_ticket_daemon.backends.kobold.check import read_text
from ai_ticket_daemon.backends.kobold.perf import (
    STOPPED_BY_END,
    STOPPED_BY_LIMIT,
    STOPPED_BY_STRING,
    read_perf,
)
from ai_ticket_daemon.backends.observation import AttemptFailed
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.backends.generation_stream import GenerationStream
    from ai_ticket_daemon.backends.kobold.perf import Perf
    from ai_ticket_daemon.backends.tokens import TokenCounter
    from ai_ticket_daemon.backends.transport.wire import Wire

_ASK_SECONDS = 3.0
"""How long all that is asked may take."""
_IDLE_SECONDS = 1.0
"""How long a server may hold its lock after a stream has ended."""
_LOOK_AGAIN_SECONDS = 0.1
_END_TOKENS = 1
"""The token that ends a text may be counted, and is no text."""
_MARK_TOKENS = 12
"""As many tokens may the marks around the thinking have, which are taken out of it."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How a stream had ended; ``usage`` is None where the server does not count the prompt."""

    finish_reason: str
    usage: Usage | None


async def find_end(
    wire: Wire,
    genkey: str,
    generation: GenerationStream,
    *,
    counter: TokenCounter,
    max_tokens: int,
    stops: Sequence[str],
) -> StreamEnd | None:
    """Return how the generation behind a stream had ended; None if it cannot be known.

    Args:
        wire: leads to the server.
        genkey: names the generation.
        generation: what came of it.
        counter: counts its text.
        max_tokens: its limit.
        stops: its stop strings.
    """
    tail = generation.tail
    if not tail.strip():
        return None
    with trio.move_on_after(_ASK_SECONDS):
        try:
            perf = await _idle(wire, sent_at=generation.sent_at or generation.started_at)
            reason = None if perf is None else reason_of(perf, max_tokens)
            if perf is None or reason is None:
                return None
            text = await read_text(wire, genkey, max_bytes=generation.bounds.text)
            if text:
                matches = ends_with(text, tail, stops)
            else:
                counted = await counter.count(generation.text_so_far, begin=False)
                spare = _END_TOKENS + (_MARK_TOKENS if generation.has_thought else 0)
                matches = counted <= perf.last_token_count <= counted + spare
        except AttemptFailed:
            return None
        if not matches:
            return None
        read = perf.last_input_count
        return StreamEnd(reason, Usage(read, perf.last_token_count) if read else None)
    return None


def reason_of(perf: Perf, max_tokens: int) -> str | None:
    """Return why the last generation ended; None if it was aborted, or there was none."""
    if perf.last_token_count == 0:
        return None
    if perf.last_stop_reason in (STOPPED_BY_END, STOPPED_BY_STRING):
        return STOP
    at_limit = perf.last_stop_reason == STOPPED_BY_LIMIT and perf.last_token_count >= max_tokens
    return LENGTH if at_limit else None


def ends_with(text: str, tail: str, stops: Sequence[str]) -> bool:
    """Whether a text ends with ``tail``, but for blanks and the stop string it was cut at."""
    place = text.rfind(tail)
    if place < 0:
        return False
    rest = text[place + len(tail) :]
    return not rest.strip() or any(rest.lstrip().startswith(stop.lstrip()) for stop in stops)


async def _idle(wire: Wire, *, sent_at: float) -> Perf | None:
    """Return the statistics once the server is idle; None if it does not become so, or is new."""
    until = trio.current_time() + _IDLE_SECONDS
    while True:
        perf = await read_perf(wire)
        if perf.uptime_seconds < trio.current_time() - sent_at or perf.queue > 0:
            return None
        if perf.idle:
            return perf
        if trio.current_time() >= until:
            return None
        await trio.sleep(_LOOK_AGAIN_SECONDS)
