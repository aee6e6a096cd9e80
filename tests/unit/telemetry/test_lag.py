from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ai_ticket_daemon.telemetry.lag import INTERVAL_SECONDS, WINDOW_SECONDS, LoopLag


class FrozenClock:
    """A clock moved by hand, apart from that of the event loop, as a blocked loop's is."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def pass_on(self, seconds: float, mock_clock: MockClock, *, blocked: float = 0) -> None:
        """Let time pass; the loop wakes up ``blocked`` seconds too late."""
        self.now += seconds + blocked
        mock_clock.jump(seconds)
        await wait_all_tasks_blocked()


async def test_a_late_wake_up_counts_for_a_minute(mock_clock: MockClock) -> None:
    clock = FrozenClock()
    lag = LoopLag(clock)
    assert lag.worst_seconds == 0
    async with trio.open_nursery() as nursery:
        await nursery.start(lag.run)
        await wait_all_tasks_blocked()
        await clock.pass_on(INTERVAL_SECONDS, mock_clock, blocked=5)
        assert lag.worst_seconds == pytest.approx(5)
        await clock.pass_on(INTERVAL_SECONDS, mock_clock, blocked=1)
        assert lag.worst_seconds == pytest.approx(5)
        await clock.pass_on(WINDOW_SECONDS - 5, mock_clock)  # 55 s late: the worst there is
        assert lag.worst_seconds == pytest.approx(WINDOW_SECONDS - 5 - INTERVAL_SECONDS)
        await clock.pass_on(INTERVAL_SECONDS, mock_clock)
        clock.now += WINDOW_SECONDS
        await clock.pass_on(INTERVAL_SECONDS, mock_clock)
        assert lag.worst_seconds == pytest.approx(WINDOW_SECONDS)
        nursery.cancel_scope.cancel()


async def test_a_wake_up_that_is_overdue_counts_before_it_comes(mock_clock: MockClock) -> None:
    clock = FrozenClock()
    lag = LoopLag(clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(lag.run)
        await wait_all_tasks_blocked()
        clock.now += INTERVAL_SECONDS + 7  # the loop's own clock stands still: it is blocked
        assert lag.worst_seconds == pytest.approx(7)
        nursery.cancel_scope.cancel()
    assert lag.worst_seconds == 0
