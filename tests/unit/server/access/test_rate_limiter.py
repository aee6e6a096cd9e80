from __future__ import annotations

import random

import pytest

from ai_ticket_daemon.server.access.rate_limiter import Allowance, RateLimiter


def take(limiter: RateLimiter, now: float, client: str = "a", requests: int = 3) -> Allowance:
    return limiter.take(client, requests=requests, window_seconds=60.0, now=now)


def test_a_client_may_make_all_its_requests_at_once_and_gets_them_back_evenly() -> None:
    limiter = RateLimiter()
    seen = [take(limiter, 100.0) for _ in range(4)]
    assert [one.remaining for one in seen] == [2, 1, 0, 0]
    assert [one.retry_after_seconds for one in seen] == [None, None, None, pytest.approx(20)]
    assert [one.reset_seconds for one in seen] == pytest.approx([20, 40, 60, 60])
    # A refused request costs nothing: 20 seconds after the third there is one more, and one only.
    assert take(limiter, 119.9).retry_after_seconds == pytest.approx(0.1)
    assert take(limiter, 120.0).retry_after_seconds is None
    assert take(limiter, 120.0).retry_after_seconds == pytest.approx(20)


def test_each_client_has_requests_of_its_own() -> None:
    limiter = RateLimiter()
    seen = [take(limiter, 0.0) for _ in range(4)]
    assert seen[-1].retry_after_seconds is not None
    assert take(limiter, 0.0, "b").retry_after_seconds is None


@pytest.mark.parametrize("requests", [1, 3, 7, 120, 999_983])
def test_rounding_never_costs_the_last_request(requests: int) -> None:
    limiter = RateLimiter()
    for now in (0.0, 1e9):
        allowed = 0
        while take(limiter, now, requests=requests).retry_after_seconds is None:
            allowed += 1
            if allowed > requests:
                break
            # All but the first and last few of a million are skipped.
            if requests > 1000 and allowed == 3:
                limiter._full_at["a"] = now + 60.0 * (requests - 3) / requests
                allowed = requests - 3
        assert allowed == requests


def test_a_random_client_never_gets_more_than_its_share() -> None:
    rng = random.Random(1)
    limiter, now, times = RateLimiter(), 0.0, []
    for _ in range(5000):
        now += rng.choice([0.0, 0.01, 1.0, 30.0]) * rng.random()
        if take(limiter, now, requests=10).retry_after_seconds is None:
            times.append(now)
    for index, start in enumerate(times):
        within = sum(start <= time < start + 60.0 for time in times[index : index + 30])
        assert within <= 20  # all at once, and those that came back meanwhile
    assert len(times) > now / 60.0 * 9


def test_the_headers_say_so_in_whole_seconds() -> None:
    assert take(RateLimiter(), 0.0, requests=7).headers() == {
        "ratelimit-limit": "7",
        "ratelimit-remaining": "6",
        "ratelimit-reset": "9",
        "ratelimit-policy": "7;w=60",
    }


def test_a_reload_to_other_limits_takes_effect_at_once() -> None:
    limiter = RateLimiter()
    for _ in range(3):
        limiter.take("a", requests=3, window_seconds=3600.0, now=0.0)
    shorter = limiter.take("a", requests=3, window_seconds=60.0, now=0.0)
    assert shorter.retry_after_seconds == pytest.approx(20)
    # And twice as many requests have twice as many left of the time that is left.
    assert limiter.take("a", requests=6, window_seconds=7200.0, now=0.0).remaining == 2


def test_clients_that_have_everything_back_are_forgotten() -> None:
    limiter = RateLimiter()
    for number in range(100):
        take(limiter, 0.0, str(number))
    assert len(limiter) == 100
    for _ in range(60):
        take(limiter, 1000.0, "new")
    assert len(limiter) == 1


def test_no_more_clients_are_remembered_than_fit() -> None:
    limiter = RateLimiter(max_clients=10)
    for number in range(1000):
        take(limiter, number / 1000, str(number))
        assert len(limiter) <= 10
    assert take(limiter, 1.0, "999").remaining == 1
    assert take(limiter, 1.0, "0").remaining == 2
