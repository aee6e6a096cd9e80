"""Connections kept for the next request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.backends.transport.kept import IDLE_SECONDS, MOST_KEPT, KeptConnections

if TYPE_CHECKING:
    from trio.testing import MockClock


class Line:
    """Stands for a connection."""

    def __init__(self) -> None:
        self.silent = True
        self.closed = False

    def is_silent(self) -> bool:
        return self.silent

    def close(self) -> None:
        self.closed = True


def kept(number: int, most: int = MOST_KEPT) -> tuple[KeptConnections, list[Any]]:
    connections = KeptConnections(most)
    lines: list[Any] = [Line() for _ in range(number)]
    for line in lines:
        connections.give(line)
    return connections, lines


async def test_the_one_that_was_in_use_last_serves_first_and_each_once() -> None:
    connections, lines = kept(2)
    assert [connections.take(), connections.take(), connections.take()] == [*reversed(lines), None]
    assert not any(line.closed for line in lines)


async def test_one_that_its_server_closed_or_spoke_on_is_passed_over_and_closed() -> None:
    connections, (sound, closed) = kept(2)
    closed.silent = False
    found: Any = connections.take()
    assert found is sound
    assert closed.closed
    assert not found.closed


async def test_one_that_was_idle_for_too_long_is_closed(mock_clock: MockClock) -> None:
    connections, (old,) = kept(1)
    mock_clock.jump(IDLE_SECONDS - 0.1)
    new: Any = Line()
    connections.give(new)
    mock_clock.jump(0.2)
    found: Any = connections.take()
    assert found is new
    assert old.closed
    connections.give(found)
    mock_clock.jump(IDLE_SECONDS + 0.1)
    assert connections.take() is None
    assert found.closed


@pytest.mark.parametrize("most", [0, 1, MOST_KEPT])
async def test_no_more_are_kept_than_there_may_be(most: int) -> None:
    _, lines = kept(most + 2, most)
    assert [line.closed for line in lines] == [True, True, *[False] * most]


async def test_after_the_end_none_is_kept() -> None:
    connections, (early,) = kept(1)
    connections.close()
    late: Any = Line()
    connections.give(late)
    assert early.closed
    assert late.closed
