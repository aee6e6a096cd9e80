"""The watch over a generation: it must not take too long, and must leave its slot free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen, SlotEnd

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation_stream import Completion, GenerationStream
    from ai_ticket_daemon.config.backends import ServerConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """The time limits of one generation, in seconds."""

    first_token_seconds: float
    idle_seconds: float
    total_seconds: float

    @classmethod
    def of(cls, config: ServerConfig, stall_seconds: float) -> Limits:
        """Return the limits set for a server, and for all in ``stall_timeout_seconds``."""
        return cls(
            config.first_token_timeout_seconds,
            min(config.idle_timeout_seconds, stall_seconds),
            config.total_timeout_seconds,
        )

    @property
    def look_seconds(self) -> float:
        """How long after the last sign of life the server is asked what it does."""
        return min(self.first_token_seconds, self.idle_seconds) / 4


class Guard(Protocol):
    """What a kind of server offers for watching and stopping a generation."""

    async def look(self, generation: GenerationStream) -> Seen | float:
        """Find out what the server does about a generation that is silent, or in doubt.

        Notes progress in ``generation.progress_at``, and settles ``generation.in_doubt``. Returns
        why the generation is not worth waiting for any longer; if it is, the seconds until the
        next look.
        """

    async def stop(self, generation: GenerationStream, reason: Seen | None) -> SlotEnd:
        """End the generation, and return what became of its slot.

        Args:
            generation: the generation.
            reason: why, or None if the caller was cancelled.
        """


def next_limit(generation: GenerationStream, limits: Limits) -> tuple[float, Seen]:
    """Return when the generation has taken too long, on trio's clock, and what that is called."""
    total_at = generation.started_at + limits.total_seconds
    if generation.progress_at is None:
        since = generation.started_at if generation.sent_at is None else generation.sent_at
        at, seen = since + limits.first_token_seconds, Seen.FIRST_TOKEN_TIMEOUT
    else:
        at, seen = generation.progress_at + limits.idle_seconds, Seen.IDLE_TIMEOUT
    return (at, seen) if at <= total_at else (total_at, Seen.TOTAL_TIMEOUT)


async def carry_out(generation: GenerationStream, limits: Limits, guard: Guard) -> Completion:
    """Run a generation to its end, within its limits.

    When cancelled, the generation is stopped first.

    Raises:
        AttemptFailed: there is no completion.
    """
    reason: Seen | None = None
    slot = SlotEnd.FREE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(generation.run)
        try:
            reason = await _watch(generation, limits, guard)
        finally:
            if not generation.finished.is_set():
                generation.discard()
                slot = await guard.stop(generation, reason)
                generation.received.slot = slot
                generation.close()
    if reason is not None:
        raise AttemptFailed(Observation(reason, passed_on=generation.passed_on, slot=slot))
    if generation.error is not None:
        raise generation.error
    if generation.completion is None:
        raise RuntimeError("the generation ended without a completion and without an error")
    return generation.completion


async def _watch(generation: GenerationStream, limits: Limits, guard: Guard) -> Seen | None:
    """Wait for the end of the generation; return why it has to be stopped before, or None."""
    look_at = generation.started_at + limits.look_seconds
    while not generation.finished.is_set():
        limit_at, _ = next_limit(generation, limits)
        if not generation.in_doubt:
            await generation.wait_until(min(limit_at, look_at))
        if generation.finished.is_set():
            break
        # The limit is computed anew, since tokens may have come and moved it.
        now = trio.current_time()
        limit_at, seen = next_limit(generation, limits)
        if now >= limit_at:
            return seen
        if generation.in_doubt or now >= look_at:
            found = await _look(generation, limit_at, guard)
            if isinstance(found, Seen):
                return found
            look_at = trio.current_time() + found
    return None


async def _look(generation: GenerationStream, limit_at: float, guard: Guard) -> Seen | float:
    """Look at the server; given up when the limit comes or the generation ends."""
    with trio.move_on_at(limit_at) as scope:
        generation.looking = scope
        try:
            return await guard.look(generation)
        finally:
            generation.looking = None
    return 0.0
