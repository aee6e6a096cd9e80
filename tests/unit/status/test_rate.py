"""How fast a total grows, over the last minute."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.status.rate import MOST_SAMPLES, Rate


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = Rate(window_seconds=60)
    assert rate.per_second == 0
    seen = []
    for total, now in ((100, 0), (130, 30), (190, 60), (190, 90), (190, 120)):
        rate.take(total, now)
        seen.append(rate.per_second)
    assert seen == pytest.approx([0, 1, 1.5, 1, 0])


def test_whoever_asks_often_gets_the_same_rate_and_costs_no_more_memory() -> None:
    rate = Rate(window_seconds=60)
    for step in range(100_000):
        rate.take(step * 0.002, step * 0.001)
    assert rate.per_second == pytest.approx(2.0)
    assert len(rate._seen) <= MOST_SAMPLES + 2
