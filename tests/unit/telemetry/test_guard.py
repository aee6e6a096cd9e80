"""Whoever looks on costs no more than the look."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import structlog
from structlog.testing import capture_logs

from ai_ticket_daemon.telemetry.guard import SAY_SECONDS, Failures, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import FilteringBoundLogger


class Observer:
    """Fails at everything it is told to fail at."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def told(self, what: str) -> str:
        if what == "bad":
            raise RecursionError(what)
        self.seen.append(what)
        return what

    @contextmanager
    def around(self, fails_at: str = "") -> Iterator[None]:
        if fails_at == "enter":
            raise ValueError(fails_at)
        try:
            yield
        finally:
            self.seen.append("left")
            if fails_at == "leave":
                raise ValueError(fails_at)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def failures(count: list[str], clock: Clock | None = None) -> Failures:
    log: FilteringBoundLogger = structlog.get_logger()
    return Failures("capture", log, count.append, clock or Clock())


def test_what_an_observer_raises_is_counted_and_the_caller_goes_on() -> None:
    observer, count = Observer(), list[str]()
    quiet = guarded(observer, failures(count))
    with capture_logs() as lines:
        assert quiet.told("good") == "good"
        assert quiet.told("bad") is None
        assert quiet.told("good") == "good"
    assert observer.seen == ["good", "good"]
    assert count == ["capture"]
    assert [(line["event"], line["part"], line["at"]) for line in lines] == [
        ("observer_failed", "capture", "told")
    ]


def test_a_thousand_failures_are_counted_and_said_once_a_minute() -> None:
    count, clock = list[str](), Clock()
    quiet = guarded(Observer(), failures(count, clock))
    with capture_logs() as lines:
        for _ in range(1000):
            quiet.told("bad")
        clock.now = SAY_SECONDS
        quiet.told("bad")
    assert len(count) == 1001
    assert [line["failures"] for line in lines] == [1, 1000]


@pytest.mark.parametrize("fails_at", ["", "enter", "leave"])
def test_a_block_is_done_whether_or_not_what_is_around_it_fails(fails_at: str) -> None:
    count = list[str]()
    quiet = guarded(Observer(), failures(count))
    done = []
    with quiet.around(fails_at):
        done.append(1)
    assert done == [1]
    assert len(count) == bool(fails_at)


def test_what_a_block_raises_is_raised_as_if_nobody_looked() -> None:
    count = list[str]()
    observer = Observer()
    quiet = guarded(observer, failures(count))
    for fails_at in ("", "enter", "leave"):
        with pytest.raises(KeyError, match="mine"), quiet.around(fails_at):
            raise KeyError("mine")
    assert observer.seen == ["left", "left"]
    assert len(count) == 2


def test_a_log_or_a_count_that_fails_is_nobodys_business() -> None:
    def refuse(_part: str) -> None:
        raise OSError(28, "No space left on device")

    log: FilteringBoundLogger = structlog.get_logger()
    assert guarded(Observer(), Failures("http", log, refuse)).told("bad") is None
