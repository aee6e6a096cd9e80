"""How fast a total grows."""

from __future__ import annotations

from collections import deque

RATE_WINDOW_SECONDS = 60.0
MOST_SAMPLES = 120
"""How many samples are kept, about; whoever asks more often is told by the same ones."""


class Rate:
    """How fast a total grows, seen over the last ``window_seconds``."""

    def __init__(self, window_seconds: float = RATE_WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._seen: deque[tuple[float, float]] = deque()
        self.per_second = 0.0

    def take(self, total: float, now: float) -> None:
        """Take in the ``total`` at ``now`` (seconds, monotonic)."""
        if not self._seen or now - self._seen[-1][0] >= self._window / MOST_SAMPLES:
            self._seen.append((now, total))
        # One sample from before the window stays, so that the samples span all of it.
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window:
            self._seen.popleft()
        since, before = self._seen[0]
        self.per_second = (total - before) / (now - since) if now > since else 0.0
