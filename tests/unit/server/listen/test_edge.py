from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import h2.exceptions
import h11
import pytest
import trio

from ai_ticket_daemon.server.listen.edge import TELL_EVERY_SECONDS, Edge
from ai_ticket_daemon.server.ports import ConnectionObserver, ConnectionRefusal

if TYPE_CHECKING:
    from trio.testing import MockClock

MALFORMED = ConnectionRefusal.MALFORMED


class Counter(ConnectionObserver):
    def __init__(self) -> None:
        self.refusals: list[ConnectionRefusal] = []

    def refused(self, why: ConnectionRefusal) -> None:
        self.refusals.append(why)


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def edge(caplog: pytest.LogCaptureFixture) -> Edge:
    caplog.set_level(logging.DEBUG)
    return Edge(logging.getLogger("edge"), Counter())


async def test_many_refusals_are_counted_each_and_told_together(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    counter = Counter()
    edge = Edge(logging.getLogger("edge"), counter)
    for _ in range(1000):
        edge.refused(MALFORMED)
    edge.refused(ConnectionRefusal.ADDRESS_FULL)
    assert counter.refusals == [MALFORMED] * 1000 + [ConnectionRefusal.ADDRESS_FULL]
    assert messages(caplog) == [
        ("INFO", "1 connection refused: malformed"),
        ("INFO", "1 connection refused: more than http.max_connections_per_address"),
    ]
    mock_clock.jump(TELL_EVERY_SECONDS)
    edge.refused(MALFORMED)
    assert messages(caplog)[2:] == [("INFO", "1000 connections refused: malformed")]


async def test_what_was_held_back_is_told_even_if_nothing_else_happens(
    edge: Edge, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        edge.refused(MALFORMED)
        edge.failed(ZeroDivisionError())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.run)
        await trio.sleep(TELL_EVERY_SECONDS * 5.5)
        nursery.cancel_scope.cancel()
    assert messages(caplog) == [
        ("INFO", "1 connection refused: malformed"),
        ("ERROR", "connection_crashed"),
        ("INFO", "2 connections refused: malformed"),
        ("ERROR", "2 more connections crashed"),
    ]


@pytest.mark.parametrize(
    "error",
    [
        h11.RemoteProtocolError("a"),
        h11.LocalProtocolError("a"),
        h2.exceptions.FlowControlError(),
        h2.exceptions.InvalidBodyLengthError(1, 2),
        ExceptionGroup("", [h11.RemoteProtocolError("a"), h2.exceptions.ProtocolError()]),
    ],
)
async def test_what_a_library_makes_of_a_clients_bytes_is_no_crash(
    edge: Edge, error: Exception, caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    edge.failed(error)
    assert messages(caplog) == [("INFO", "1 connection refused: malformed")]


async def test_a_fault_of_ours_stays_one_in_whatever_company(
    edge: Edge, caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    edge.failed(ExceptionGroup("", [h11.RemoteProtocolError("a"), KeyError("b")]))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "connection_crashed")
    assert record.exc_info
