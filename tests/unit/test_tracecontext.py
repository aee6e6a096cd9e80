from __future__ import annotations

import pytest

from ai_ticket_daemon.tracecontext import (
    TraceContext,
    kept_trace,
    kept_trace_id,
    new_trace,
    trace_of,
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01".encode()


def test_the_trace_of_the_client_goes_on() -> None:
    trace = trace_of([(b"traceparent", GOOD), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    assert trace.remote
    assert trace.trace_id == TRACE
    assert trace.headers() == {"traceparent": GOOD.decode(), "tracestate": "a=1,b=2"}


@pytest.mark.parametrize("value", [GOOD + b"-later", GOOD, b" " + GOOD + b" "])
def test_a_later_version_may_say_more(value: bytes) -> None:
    assert trace_of([(b"traceparent", value.replace(b"00-", b"01-", 1))]).trace_id == TRACE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"nonsense",
        GOOD.upper(),
        GOOD + b"-more",
        GOOD[:-1],
        GOOD + b"1",
        b"ff" + GOOD[2:],
        GOOD.replace(TRACE.encode(), b"0" * 32),
        GOOD.replace(PARENT.encode(), b"0" * 16),
        b"\xff" * 55,
    ],
)
def test_a_malformed_traceparent_counts_as_none(value: bytes) -> None:
    trace = trace_of([(b"traceparent", value), (b"tracestate", b"a=1")])
    assert not trace.remote
    assert trace.trace_id != TRACE
    assert "tracestate" not in trace.headers()


def test_two_traceparents_count_as_none() -> None:
    assert not trace_of([(b"traceparent", GOOD), (b"traceparent", GOOD)]).remote


@pytest.mark.parametrize("state", [b"a=" + b"x" * 511, b"\xff", b"a\tb", b""])
def test_a_tracestate_that_cannot_be_handed_on_is_dropped(state: bytes) -> None:
    trace = trace_of([(b"traceparent", GOOD), (b"tracestate", state)])
    assert trace.headers() == {"traceparent": GOOD.decode()}


def test_fresh_traces_differ_and_are_valid() -> None:
    first, second = new_trace(), new_trace()
    assert first.trace_id != second.trace_id
    again = trace_of([(b"traceparent", first.headers()["traceparent"].encode())])
    assert again.trace_id == first.trace_id


@pytest.mark.parametrize("state", [None, "a=1"])
@pytest.mark.parametrize("client_id", [None, "b7ad6b7169203331"])
def test_a_trace_is_read_as_it_was_kept(state: str | None, client_id: str | None) -> None:
    trace = TraceContext(TRACE, PARENT, "01", state, remote=False, client_id=client_id)
    assert kept_trace(trace.kept()) == trace
    assert kept_trace_id(trace.kept()) == TRACE


@pytest.mark.parametrize("kept", [{}, {"traceparent": "00-b-1-01"}, {"tracestate": "a=1"}])
def test_where_no_trace_is_kept_none_is_read(kept: dict[str, str]) -> None:
    assert kept_trace(kept) is None
    assert kept_trace_id(kept) is None


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)]
)
def test_a_trace_is_sampled_if_its_lowest_flag_says_so(flags: str, *, sampled: bool) -> None:
    assert TraceContext(TRACE, PARENT, flags, None, remote=True).is_sampled is sampled
