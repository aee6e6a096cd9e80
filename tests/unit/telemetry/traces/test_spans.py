"""Spans as they are noted down, made and encoded; measured against the SDK's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from ai_ticket_daemon.telemetry.traces.span_encoder import SpanEncoder
from ai_ticket_daemon.telemetry.traces.span_maker import SpanMaker
from ai_ticket_daemon.telemetry.traces.spans import Span, Tracer, current_span, span_context
from ai_ticket_daemon.tracecontext import kept_trace, trace_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

RESOURCE = Resource({"service.name": "tickets"})
TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = f"00-{TRACE}-b7ad6b7169203331-"
MIXED: dict[str, Any] = {
    "text": "ä" * 200,
    "one": 1,
    "true": True,
    "float": 1.0,
    "negative": -3,
    "texts": ("a", "b"),
    "numbers": (1, 2),
    "floats": (1.0, 2.0),
    "flags": (True, False),
    "empty": (),
}


def start(
    parent: str = "", sampler: Sampler | None = None, **attributes: Any
) -> tuple[Span, list[Span]]:
    ended: list[Span] = []
    headers = [(b"traceparent", parent.encode()), (b"tracestate", b"a=b,c=d")]
    above = span_context(trace_of(headers)) if parent else None
    tracer = Tracer(sampler, ended.append)
    return tracer.start("x", SpanKind.CLIENT, above, attributes), ended


@pytest.mark.parametrize("parent", ["", CLIENT + "01"])
def test_it_is_encoded_as_the_exporter_would_have_done_it(parent: str) -> None:
    maker, encoder = SpanMaker(RESOURCE), SpanEncoder()
    for rounds in range(2):  # the second time from memory
        made = []
        for number in range(3):
            span, _ = start(parent, **MIXED, number=number)
            span.add_event("first", MIXED)
            span.add_event("second", {"round": rounds, "one": 1.0})
            if number == 1:
                span.fail("it broke")
            span.end()
            made.append(maker.make(span))
        assert ExportTraceServiceRequest.FromString(encoder.encode(made)) == encode_spans(made)


def test_it_says_what_a_span_of_the_sdk_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within limits that bind."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "4")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    monkeypatch.setenv("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "2")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "2")
    kept = Kept()
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(kept)
    theirs = provider.get_tracer("any").start_span("x", kind=SpanKind.CLIENT, attributes=MIXED)
    ours, _ = start(**MIXED)
    for event in ("first", "second", "third"):
        theirs.add_event(event, MIXED)
        ours.add_event(event, MIXED)
    theirs.set_status(StatusCode.ERROR, "it broke")
    ours.fail("it broke")
    theirs.end()
    ours.end()
    made = SpanMaker(RESOURCE).make(ours)
    assert said(made) == said(kept.spans[0])
    assert made.start_time is not None
    assert made.end_time is not None
    assert made.start_time <= made.events[0].timestamp <= made.end_time


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def said(span: ReadableSpan) -> object:
    return (
        span.name,
        span.kind,
        span.resource,
        dict(span.attributes or {}),
        [(event.name, dict(event.attributes or {})) for event in span.events],
        (span.status.status_code, span.status.description),
        (span.dropped_attributes, span.dropped_events, span.events[0].dropped_attributes),
    )


def test_a_trace_of_the_client_goes_on() -> None:
    span, _ = start(CLIENT + "01")
    headers = span.headers()
    version, trace, span_id, flags = headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert int(span_id, 16) == span.context.span_id
    assert headers["tracestate"] == "a=b,c=d"


def test_spans_of_a_new_trace_have_ids_of_their_own() -> None:
    spans = [start()[0] for _ in range(100)]
    assert len({span.context.trace_id for span in spans}) == 100
    assert len({span.context.span_id for span in spans}) == 100
    # Sampled, and made up at random (https://www.w3.org/TR/trace-context-2/#random-trace-id-flag).
    assert spans[0].headers()["traceparent"].endswith("-03")
    assert "tracestate" not in spans[0].headers()


@pytest.mark.parametrize(
    ("parent", "sampler", "recorded"),
    [
        ("", None, True),
        (CLIENT + "00", None, False),
        (CLIENT + "01", None, True),
        ("", ALWAYS_OFF, False),
        (CLIENT + "01", ALWAYS_OFF, False),
        (CLIENT + "00", ALWAYS_ON, True),
        (CLIENT + "01", ParentBased(ALWAYS_OFF), True),
        (CLIENT + "00", ParentBased(ALWAYS_ON), False),
    ],
)
def test_what_is_recorded_is_decided_where_a_trace_comes_in(
    parent: str, sampler: Sampler | None, recorded: bool
) -> None:
    top, ended = start(parent, sampler)
    below = Tracer(sampler, ended.append).start(
        "below", SpanKind.CONSUMER, span_context(kept_trace(top.headers())), {}
    )
    below.end()
    top.end()
    assert (top.recorded, below.recorded) == (recorded, recorded)
    assert ended == ([below, top] if recorded else [])
    assert top.headers()["traceparent"][-1] in ("13" if recorded else "02")


def test_a_span_is_the_current_one_within_its_block() -> None:
    outer, ended = start()
    inner, _ = start()
    with outer:
        assert current_span() is outer
        with inner:
            assert current_span() is inner
        assert current_span() is outer
    assert current_span() is None
    assert ended == [outer]
    assert outer.failure is None


def test_an_error_marks_it_without_its_text() -> None:
    span, ended = start()
    with pytest.raises(ValueError, match="prompt"), span:
        raise ValueError("a prompt")
    (same,) = ended
    assert same.failure == ""
    assert SpanMaker(RESOURCE).make(span).status.status_code is StatusCode.ERROR
