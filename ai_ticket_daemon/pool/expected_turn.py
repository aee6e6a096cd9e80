"""How long one turn is likely to take, by what the servers tell of their last generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_ticket_daemon.pool.health import Health


def turn_seconds(healths: Iterable[Health], written_tokens: int) -> float | None:
    """Return how long the slowest server takes; None if none tells its speed.

    Args:
        healths: what is known of the servers.
        written_tokens: how many tokens are to be written; the prompt is taken to be as long as the
            last one that the server read.
    """
    turns = [_turn_seconds(health, written_tokens) for health in healths]
    return max((seconds for seconds in turns if seconds is not None), default=None)


def _turn_seconds(health: Health, written_tokens: int) -> float | None:
    if not health.written_tokens_per_second:
        return None
    reading = 0.0
    if health.prompt_tokens_per_second and health.last_prompt_tokens:
        reading = health.last_prompt_tokens / health.prompt_tokens_per_second
    return reading + written_tokens / health.written_tokens_per_second
