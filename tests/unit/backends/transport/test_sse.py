"""Events of a stream, however a server writes them down and however they are cut."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.transport.sse import Event, EventStream, EventTooLong


def read(stream: bytes, *, step: int, longest: int = 1000) -> tuple[list[Event], bool]:
    events = EventStream(longest)
    found: list[Event] = []
    for at in range(0, len(stream), step):
        found += events.feed(stream[at : at + step])
    done = events.done
    return found + events.close(), done


TWO = [Event(b'{"a":1}'), Event(b'{"b":2}')]
STREAMS = {
    "LF": b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "CRLF": b'data: {"a":1}\r\n\r\ndata: {"b":2}\r\n\r\ndata: [DONE]\r\n\r\n',
    "CR": b'data: {"a":1}\r\rdata: {"b":2}\r\rdata: [DONE]\r\r',
    "mixed": b'data: {"a":1}\r\n\ndata: {"b":2}\r\r\ndata: [DONE]',
    "no blank": b'data:{"a":1}\n\ndata:{"b":2}\n\ndata:[DONE]',
    "a mark at the start": b'\xef\xbb\xbfdata: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "other fields": b'event: message\nid: 7\nretry: 10\ndata: {"a":1}\n\ndata: {"b":2}\n\n'
    b"data: [DONE]\n\n",
    "comments": b': hello\n\ndata: {"a":1}\n: more\n\n:\n\ndata: {"b":2}\n\ndata: [DONE]\n\n',
    "empty events": b'data:\n\ndata: \n\ndata\n\ndata: {"a":1}\n\n\n\ndata: {"b":2}\n\n'
    b"data: [DONE]",
}


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", STREAMS)
def test_every_way_to_write_a_stream_gives_the_same_events(name: str, step: int) -> None:
    assert read(STREAMS[name], step=step) == (TWO, True)


def test_data_of_several_lines_is_one_event() -> None:
    assert read(b'data: {"a":\ndata: 1}\n\n', step=1000)[0] == [Event(b'{"a":\n1}')]


@pytest.mark.parametrize(
    "stream", [b"event: error\ndata: broken\n\n", b"error: broken\n\n"], ids=["event", "field"]
)
def test_what_a_server_calls_an_error_is_known_as_one_and_the_next_event_is_not(
    stream: bytes,
) -> None:
    found, _ = read(stream + b"data: 1\n\n", step=4)
    assert found == [Event(b"broken", is_error=True), Event(b"1")]


def test_what_the_end_of_the_connection_leaves_open_is_an_event() -> None:
    assert read(b'data: {"a":1}', step=5) == ([TWO[0]], False)


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 2000, b"data: xxxxxxxxxx\n" * 200])
def test_an_event_has_a_bound_in_one_line_and_in_many(stream: bytes) -> None:
    with pytest.raises(EventTooLong):
        read(stream, step=50)
