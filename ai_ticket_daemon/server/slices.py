"""Long work on the event loop, in slices between which everybody else gets a turn."""

from __future__ import annotations

import time

import trio

from ai_ticket_daemon.events.json_bounds import values_at_most

SLICE_SECONDS = 0.005

HEAVY_BYTES = 65_536
HEAVY_VALUES = 500
"""A body that is larger, or made of more values, is read while no other such body is.

The lock hands over from one turn of the event loop to the next, so that many of them that have come
at one moment are not read within one turn.
"""


def is_heavy(data: bytes) -> bool:
    """Tell whether reading ``data`` takes a noticeable time."""
    return len(data) > HEAVY_BYTES or values_at_most(data) > HEAVY_VALUES


class Slices:
    """Time to work, to be asked often whether it is over."""

    def __init__(self) -> None:
        self._over_at = time.perf_counter() + SLICE_SECONDS

    async def rest(self) -> None:
        """Let the others have a turn if the slice is over; then the next one begins."""
        if time.perf_counter() >= self._over_at:
            await trio.lowlevel.checkpoint()
            self._over_at = time.perf_counter() + SLICE_SECONDS
