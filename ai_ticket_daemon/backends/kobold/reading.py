"""How long KoboldCPP reads a prompt, by what it was seen to take.

A generation that is stopped meanwhile goes on until the prompt, or the batch of it in hand, is
read. That is no fault, however long the prompt is: only a server that takes longer is stuck.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.kobold.perf import Perf

_MEASURED = 8
"""Generations that are looked back at; the slowest counts, since a known prompt is read at once."""
_TOLERANCE = 1.5
_GRACE_SECONDS = 5.0


class PromptSpeed:
    """How fast one server reads, measured at its last generations."""

    def __init__(self) -> None:
        self._token_seconds: deque[tuple[int, float]] = deque(maxlen=_MEASURED)

    def note(self, perf: Perf) -> None:
        """Take in what the server says of its last generation, once for each."""
        known = self._token_seconds[-1][0] if self._token_seconds else 0
        if perf.total_gens != known and perf.prompt_token_seconds > 0:
            self._token_seconds.append((perf.total_gens, perf.prompt_token_seconds))

    def forget(self) -> None:
        """Forget it all: the server may have another model, or run on something else."""
        self._token_seconds.clear()

    def longest_seconds(self, prompt_tokens: int) -> float | None:
        """Return how long reading so many tokens may take; None if nothing was measured yet."""
        if not self._token_seconds:
            return None
        slowest = max(seconds for _, seconds in self._token_seconds)
        return prompt_tokens * slowest * _TOLERANCE + _GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of the reading of one prompt.

    ``unmeasured_seconds`` is how long it may take on a server whose speed is not known yet, and
    ``load_seconds`` how long the server may first load its model.
    """

    speed: PromptSpeed
    prompt_tokens: int
    unmeasured_seconds: float
    load_seconds: float = 0.0

    def left_seconds(self, sent_at: float, now: float) -> float:
        """Return how much longer a prompt that was sent at ``sent_at`` may be read from ``now``."""
        longest = self.speed.longest_seconds(self.prompt_tokens)
        if longest is None:
            longest = self.unmeasured_seconds
        return max(0.0, sent_at + self.load_seconds + longest - now)


def cautious_tokens(text: str) -> int:
    """Return how many tokens a text that was not counted may have: hardly any has more."""
    return math.ceil(len(text.encode()) / 2)
