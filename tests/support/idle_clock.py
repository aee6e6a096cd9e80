"""A clock for tests of timeouts that is indifferent to how busy the machine is."""

from __future__ import annotations

import time

import trio

LONGEST_WAIT_SECONDS = 0.05
"""Of the machine's clock; a process that is not let on after a wait loses nothing by it."""


class IdleClock(trio.abc.Clock, trio.abc.Instrument):
    """Time that passes only while the event loop has nothing to do; to compute takes none.

    Client, daemon and servers run in the one loop: while it computes, one of them works, and on a
    busy machine only that takes longer. Give it to :func:`trio.run` as the clock and as one of the
    instruments.

    Args:
        rate: seconds of this clock for each second of waiting; the less, the longer may a thread
            take, on which the loop does wait.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._now = 0.0
        self._wait_began = 0.0

    def start_clock(self) -> None:
        """Nothing has to be started."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return min(max(0.0, deadline - self._now) / self._rate, LONGEST_WAIT_SECONDS)

    def before_io_wait(self, timeout: float) -> None:
        self._wait_began = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        waited = time.perf_counter() - self._wait_began
        self._now += min(waited, timeout) * self._rate
