"""Behind how many turns of other events an event waited."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

REMEMBERED_TURNS = 10_000
"""Bounds what is remembered; whoever waited behind more is told that many."""

NOTICEABLE_SECONDS = 0.05
"""Shorter waits are not worth a word, unless there was something to wait for."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How long an event waited for an attempt, and ``behind`` how many turns of others."""

    seconds: float
    behind: int

    def __bool__(self) -> bool:
        """Whether it is worth telling."""
        return self.behind > 0 or self.seconds >= NOTICEABLE_SECONDS


class RecentTurns:
    """When the last turns ended, in seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=REMEMBERED_TURNS)

    def note(self, at: float) -> None:
        """Note the end of a turn."""
        self._times.append(at)

    def since(self, at: float) -> int:
        """Return how many turns have ended since then, as far as it is remembered."""
        return len(self._times) - bisect_right(self._times, at)
