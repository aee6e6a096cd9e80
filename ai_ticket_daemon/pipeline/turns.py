"""What recent turns tell: behind how many an event waited, and when a queued one will start.

A turn lasts from taking an event out of the queue until its slot is free again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

REMEMBERED_TURNS = 10_000
"""How many turns are remembered; an event that waited behind more is told this number."""

NOTICEABLE_SECONDS = 0.05
"""Shorter waits are not worth a word, unless there was something to wait for."""

_WEIGHT = 0.1
"""Share of the newest turn in the mean; the last twenty or so decide."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How long an event waited for an attempt, and ``behind`` how many turns of others.

    It was taken ``ahead_of`` others then; earlier ones had ``overtaken`` it so meanwhile.
    """

    seconds: float
    behind: int
    ahead_of: int = 0
    overtaken: int = 0

    def __bool__(self) -> bool:
        """Whether it is worth telling."""
        return self.behind > 0 or self.seconds >= NOTICEABLE_SECONDS


class RecentTurns:
    """When the last turns ended, and how long they took in the mean.

    The mean is an exponentially weighted moving average.
    """

    def __init__(self) -> None:
        self._ended_at: deque[float] = deque(maxlen=REMEMBERED_TURNS)
        self._mean_seconds: float | None = None

    def note(self, ended_at: float, seconds: float) -> None:
        """Note a turn that took ``seconds`` and ended then (seconds since the Unix epoch)."""
        self._ended_at.append(ended_at)
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else mean + _WEIGHT * (seconds - mean)

    def since(self, at: float) -> int:
        """Return how many turns have ended since then, as far as they are remembered."""
        return len(self._ended_at) - bisect_right(self._ended_at, at)

    def start_at(
        self,
        position: int,
        *,
        slots: int,
        free: int,
        now: float,
        expected_seconds: float | None = None,
    ) -> float | None:
        """Return when the event at ``position`` starts.

        Args:
            position: its place in the queue, from 1.
            slots: how many events can run at a time; 0 while no backend is usable.
            free: how many more could start now.
            now: seconds since the Unix epoch.
            expected_seconds: how long a turn may take, as long as none has ended yet.

        Returns:
            Seconds since the Unix epoch; None while that cannot be said.
        """
        seconds = self.seconds_for(
            max(0, position - free), slots=slots, expected_seconds=expected_seconds
        )
        return None if seconds is None else now + seconds

    def seconds_for(
        self, events: int, *, slots: int, expected_seconds: float | None = None
    ) -> float | None:
        """Return how long ``slots`` need for ``events``; None while that cannot be said."""
        turn = expected_seconds if self._mean_seconds is None else self._mean_seconds
        if slots == 0 or turn is None:
            return None
        return events * turn / slots
