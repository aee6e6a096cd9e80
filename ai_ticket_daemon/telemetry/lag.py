"""How late the event loop wakes its tasks: an actor that sleeps, and a value anybody may read.

The value counts a wake-up that is overdue, so that a blocked loop shows while it is blocked: the
metrics page reads it from a thread of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_SECONDS = 0.25
WINDOW_SECONDS = 60.0
"""How long a late wake-up is remembered: longer than Prometheus takes from look to look."""


class LoopLag:
    """Remembers the late wake-ups of the last minute.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_at: float | None = None
        # Replaced, never changed: a thread may be reading it.
        self._recent: tuple[tuple[float, float], ...] = ()

    @property
    def worst_seconds(self) -> float:
        """The latest wake-up within the last minute, one that is overdue included."""
        due_at, recent, now = self._due_at, self._recent, self._clock()
        overdue = 0.0 if due_at is None else now - due_at
        return max(overdue, 0.0, *(lag for at, lag in recent if at > now - WINDOW_SECONDS))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sleep, and note how late each sleep ended; runs until cancelled."""
        task_status.started()
        try:
            while True:
                self._due_at = self._clock() + INTERVAL_SECONDS
                await trio.sleep(INTERVAL_SECONDS)
                self._woken(self._due_at)
        finally:
            self._due_at = None

    def _woken(self, due_at: float) -> None:
        now = self._clock()
        # Of two wake-ups the earlier, less late one will never be the worst again.
        kept = (
            (at, lag)
            for at, lag in self._recent
            if at > now - WINDOW_SECONDS and lag > now - due_at
        )
        self._recent = (*kept, (now, now - due_at))
