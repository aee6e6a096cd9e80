"""Answers: whether their connection may serve again, and errors that do not end."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.answer import Answer
from ai_ticket_daemon.backends.transport.head import Head
from ai_ticket_daemon.backends.transport.replies import refuse_error_status
from tests.support.scripted_stream import ScriptedStream, connection_over

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ai_ticket_daemon.backends.transport.connection import Connection

LAST = b"0\r\n\r\n"
ANOTHER = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nNot yours"


class Records:
    """A connection over TLS: each record is had for itself."""

    hides = True

    def __init__(self, *records: bytes) -> None:
        self._records = list(records)
        self.closed = False

    async def receive_now(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._records.pop(0) if self._records else b""

    async def receive(self) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("records", "kept"),
    [
        ((LAST,), True),
        ((LAST[:2], LAST[2:]), True),
        ((LAST, ANOTHER), False),
        ((LAST + ANOTHER,), False),
        ((LAST[:2], LAST[2:], ANOTHER), False),
        ((LAST[:2],), False),
        ((b"1\r\na\r\n",) * 20, False),
    ],
)
async def test_a_connection_serves_again_only_if_no_record_is_left_on_it(
    records: tuple[bytes, ...], kept: bool
) -> None:
    connection = Records(*records)
    given: list[Connection] = []
    head = Head(200, {}, keeps=True, chunked=True, length=None)
    answer = Answer(head, b"5\r\nhello\r\n", cast("Connection", connection), given.append)
    assert await answer.read_some(100) == b"hello"
    await answer.aclose()
    assert (bool(given), connection.closed) == (kept, not kept)


async def test_an_error_is_known_by_its_status_if_what_it_says_does_not_come(
    autojump_clock: MockClock,
) -> None:
    head = Head(401, {}, keeps=False, chunked=False, length=None)
    answer = Answer(head, b"{", cast("Connection", Records()), lambda _: None)
    with pytest.raises(AttemptFailed) as caught:
        await refuse_error_status(answer)
    assert (caught.value.observation.seen, caught.value.observation.status) == (Seen.STATUS, 401)
    assert trio.current_time() < 10


async def test_a_server_that_announces_an_answer_for_ever_is_no_http_server() -> None:
    announced = b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000
    for says, seen in ((announced[:2500], Seen.NO_BYTE), (announced, Seen.NOT_HTTP)):
        connection = connection_over(ScriptedStream({b"ask": says}.__getitem__))
        with pytest.raises(AttemptFailed) as caught:
            await connection.ask(b"ask")
        assert caught.value.observation.seen is seen
