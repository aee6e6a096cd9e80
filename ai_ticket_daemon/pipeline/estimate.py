"""When a queued event will start, from how long events have taken lately: plain arithmetic."""

from __future__ import annotations

_WEIGHT = 0.1
"""Share of the newest measurement in the mean; the last twenty or so decide."""


class Throughput:
    """The mean time for which an event holds a slot (an exponentially weighted moving average)."""

    def __init__(self) -> None:
        self._mean_seconds: float | None = None

    def measured(self, seconds: float) -> None:
        """Take in how long an attempt held its slot."""
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else mean + _WEIGHT * (seconds - mean)

    def start_at(self, position: int, *, slots: int, free: int, now: float) -> float | None:
        """Return when the event at ``position`` starts.

        Args:
            position: its place in the queue, from 1.
            slots: how many events can run at a time; 0 while no backend is usable.
            free: how many more could start now.
            now: seconds since the Unix epoch.

        Returns:
            Seconds since the Unix epoch; None while that cannot be said.
        """
        seconds = self.seconds_for(max(0, position - free), slots=slots)
        return None if seconds is None else now + seconds

    def seconds_for(self, events: int, *, slots: int) -> float | None:
        """Return how long ``slots`` need for ``events``; None while that cannot be said."""
        if slots == 0 or self._mean_seconds is None:
            return None
        return events * self._mean_seconds / slots
