"""Answers in bytes: what is read of them, whatever pieces they come in.

h11, which reads requests at the front, says what each of them is worth: two readers of HTTP in one
program have to agree on where an answer ends.
"""

from __future__ import annotations

import random
from itertools import product
from typing import TYPE_CHECKING

import h11
import pytest

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.answer import Answer
from ai_ticket_daemon.backends.transport.head import MOST_FIELDS, MOST_HEAD_BYTES
from ai_ticket_daemon.backends.transport.translate import Stage, translate
from tests.support.answer_table import CHUNKED, OK, SIZED, TABLE, WHOLE
from tests.support.scripted_stream import ScriptedStream, connection_over

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.connection import Connection

ENDED = (
    b"HTTP/1.1 100 C\r\n\r\n" + SIZED,
    SIZED.replace(b"content", b"x: a\r\n b\r\ncontent"),
    OK + b"connection: close\r\n\r\n{}",
    WHOLE.replace(b"\r\n2", b"\r\n1;a=b\r\n \r\n2")[:-2] + b"x-y: z\r\n\r\n",
    b"HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n" + SIZED,
)
"""One answer of each kind: announced, folded, open, in chunks with a trailer, without a body."""
MOST_BODY_BYTES = 10_000_000
FRAMING = {"content-length", "transfer-encoding"}
Outcome = tuple[object, ...]


def as_h11_reads(raw: bytes, piece: int) -> Outcome:
    """Return what h11 makes of an answer: no answer, or status, headers, body and how it ended."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
    reader.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    pieces = iter([raw[at : at + piece] for at in range(0, len(raw), piece)])
    head: Outcome | None = None
    body = b""
    closed = False
    try:
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                received = next(pieces, b"")
                closed = closed or not received
                if not received and head is None:
                    return (Seen.NO_BYTE,)
                reader.receive_data(received)
            elif isinstance(event, h11.Response):
                head = (event.status_code, headers_of(event))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                keeps = reader.their_state is h11.DONE and not closed
                more = reader.trailing_data[0] or any(pieces)
                return (*head, body, "keeps" if keeps and not more else "ends")
    except h11.RemoteProtocolError:
        return (Seen.NOT_HTTP,) if head is None else (*head, body, Seen.CUT)


def headers_of(event: h11.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def as_we_read(raw: bytes, piece: int) -> Outcome:
    stream = ScriptedStream(lambda _asked: raw, piece)
    connection = connection_over(stream)
    given: list[Connection] = []
    try:
        head, received = await connection.ask(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    except AttemptFailed as failure:
        return (failure.observation.seen,)
    answer = Answer(head, received, connection, given.append)
    body = b""
    ended: object = "ends"
    try:
        while more := await answer.read_some(MOST_BODY_BYTES):
            body += more
    except AttemptFailed as failure:
        ended = failure.observation.seen
    await answer.aclose()
    # Bytes that were not received yet would be seen before the connection serves again.
    rest = stream.receive_now(1)
    if given and not rest:
        ended = "keeps"
    return (answer.status, answer.headers, body, ended)


def plain(outcome: Outcome) -> Outcome:
    """Return an outcome without what the two may hold differently: how a length is repeated."""
    if len(outcome) == 1:
        return outcome
    status, headers, *rest = outcome
    assert isinstance(headers, dict)
    kept = {name: value for name, value in headers.items() if name not in FRAMING}
    ascii_only = {name: value if value.isascii() else "?" for name, value in kept.items()}
    return (status, ascii_only, *rest)


@pytest.mark.parametrize("piece", [1, 7, 65_536])
async def test_an_answer_is_read_as_h11_reads_it_in_pieces_of_any_size(piece: int) -> None:
    for raw in TABLE:
        expected, found = plain(as_h11_reads(raw, piece)), plain(await as_we_read(raw, piece))
        assert found == expected, raw


async def test_mutated_answers_are_read_as_h11_reads_them() -> None:
    chance = random.Random(20)
    words = (b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"0", b"2", b"\0", b"\xff", b"chunked",
             b"content-length: 2\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
             b"HTTP/1.1 100 C\r\n\r\n", b"\r\n\r\n", b";", b"x: y\r\n")  # fmt: skip
    agreed = 0
    for raw, _ in product(TABLE, range(12)):
        changed = bytearray(raw)
        for _ in range(chance.choice((1, 1, 2, 3))):
            at = chance.randrange(len(changed) + 1)
            changed[at : at + chance.choice((0, 0, 1, 2, 5))] = chance.choice(words)
        whole, piece = bytes(changed), chance.choice((1, 3, 20, 65_536))
        expected, found = plain(as_h11_reads(whole, piece)), plain(await as_we_read(whole, piece))
        assert found == expected, (whole, piece)
        agreed += len(found) > 1
    assert agreed > 200


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (OK + b"x: y\r\n" * 20_000, Seen.NOT_HTTP),
        (OK + b"x: " + b"y" * 110_000, Seen.NOT_HTTP),
        (CHUNKED + b"1;" + b"e" * 110_000, Seen.CUT),
        (WHOLE[:-2] + b"x: y\r\n" * 20_000, Seen.CUT),
    ],
)
async def test_what_is_no_text_of_an_answer_has_a_bound(raw: bytes, seen: Seen) -> None:
    found = await as_we_read(raw, 8192)
    assert found[-1] is seen
    assert found == plain(as_h11_reads(raw, 8192)) or found[2:] == as_h11_reads(raw, 8192)[2:]


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"x: y\r\n" * 33_000 + b"\r\n",
        OK + b"a:\r\n" * 501 + b"\r\n{}",
        OK + b"a:\r\n b\r\n" * 501 + b"\r\n{}",
    ],
)
async def test_a_head_of_more_lines_than_any_server_has_is_refused(raw: bytes) -> None:
    assert await as_we_read(raw, 65_536) == (Seen.NOT_HTTP,)


async def test_as_many_lines_of_a_head_as_are_allowed_are_read_and_joined() -> None:
    raw = OK + b"a: b\r\n" * (MOST_FIELDS - 1) + b"content-length: 0\r\n\r\n"
    assert plain(await as_we_read(raw, 100)) == plain(as_h11_reads(raw, 100))


async def test_a_trailer_of_more_lines_than_any_server_has_is_refused() -> None:
    raw = WHOLE[:-2] + b"a:\r\n" * 501 + b"\r\n"
    assert (await as_we_read(raw, 8192))[-1] is Seen.CUT


@pytest.mark.parametrize("piece", [1000, 65_536])
@pytest.mark.parametrize(
    "chunk",
    [
        b"1;" + b"e" * 400 + b"\r\na\r\n",
        b"1" + b" " * 400 + b"\r\na\r\n",
        b"0" * 19 + b"1;" + b"e" * 90_000 + b"\r\na\r\n",
    ],
)
async def test_a_body_of_little_but_the_framing_of_its_chunks_is_refused(
    chunk: bytes, piece: int
) -> None:
    raw = CHUNKED + chunk * (1_000_000 // len(chunk))
    assert (await as_we_read(raw, piece))[-1] is Seen.TOO_LARGE


@pytest.mark.parametrize("size", [b"1", b"1 ", b"0001", b"1;a=b"])
async def test_chunks_of_one_byte_are_read_however_many_they_are(size: bytes) -> None:
    raw = CHUNKED + (size + b"\r\na\r\n") * 60_000 + b"0\r\n\r\n"
    assert (await as_we_read(raw, 65_536))[2:] == (b"a" * 60_000, "keeps")


@pytest.mark.parametrize("piece", [1, 65_536])
async def test_an_answer_that_ends_anywhere_is_read_as_h11_reads_it(piece: int) -> None:
    for raw in ENDED:
        for length in range(len(raw)):
            cut = raw[:length]
            assert plain(await as_we_read(cut, piece)) == plain(as_h11_reads(cut, piece)), cut


async def test_what_came_before_the_fault_is_given_first() -> None:
    assert (await as_we_read(CHUNKED + b"2\r\n{}\r\nzz\r\n", 65_536))[2:] == (b"{}", Seen.CUT)


async def test_a_body_beyond_its_bound_is_refused() -> None:
    stream = ScriptedStream(lambda _asked: OK + b"\r\n" + b"x" * 3000, 1000)
    connection = connection_over(stream)
    answer = Answer(*await connection.ask(b""), connection, lambda _connection: None)
    with pytest.raises(AttemptFailed) as caught:
        await answer.read_all(2000)
    assert caught.value.observation.seen is Seen.TOO_LARGE
    await answer.aclose()
    assert stream.closed


def test_a_fault_of_the_program_is_not_translated() -> None:
    with pytest.raises(RuntimeError, match="a fault"):
        translate(RuntimeError("a fault"), Stage.ASKING)
