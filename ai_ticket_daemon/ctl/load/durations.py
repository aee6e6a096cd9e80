"""Durations and their percentiles, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter

_STEP = 1.01
_LEAST_SECONDS = 1e-6


class Durations:
    """Counts durations in buckets of 1 % width; a percentile is never told smaller than it is."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.longest = 0.0

    def __len__(self) -> int:
        return self._buckets.total()

    def add(self, seconds: float) -> None:
        """Take in one."""
        self._buckets[math.ceil(math.log(max(seconds, _LEAST_SECONDS), _STEP))] += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, share: float) -> float:
        """Return the seconds that ``share`` of all do not exceed, up to 1 % more; 0 of none."""
        left = math.ceil(share * len(self))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(_STEP**bucket, self.longest)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Return what a report tells of them, in seconds."""
        levels = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
        told = {name: self.percentile(share) for name, share in levels.items()}
        return {name: round(value, 4) for name, value in (told | {"max": self.longest}).items()}
