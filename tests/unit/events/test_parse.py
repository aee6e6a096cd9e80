from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling, payload_digest
from ai_ticket_daemon.events.limits import MAX_METADATA_BYTES, MAX_STOP_CHARACTERS
from ai_ticket_daemon.events.parse import parse_event
from ai_ticket_daemon.events.reasoning import Reasoning, ReasoningEffort

LIMITS = EventsConfig()
SHAPE_FIELDS = ["content", "messages", "prompt", "role", "text", "type"]
PARAMETERS = [
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "priority",
    "timeout_seconds",
    "metadata",
    "stream",
    "reasoning",
    "reasoning_effort",
]


EARLIER_DIGEST = "fe360997eef47c3fa2b4f262ff754ff3686d8002e15803faf2d7eac9d3cdb239"


def parse(body: object, limits: EventsConfig = LIMITS) -> Event:
    return parse_event(
        body, limits=limits, now=1000.0, event_id="id", trace_context={"traceparent": "t"}
    )


def test_what_the_client_does_not_say_has_a_default() -> None:
    assert parse({"content": "a"}) == Event(
        event_id="id",
        messages=(Message(Role.USER, "a"),),
        sampling=Sampling(256, 0.7, 1.0, (), None),
        submitted_at=1000.0,
        deadline_at=1300.0,
        priority=5,
        stream=False,
        metadata=None,
        trace_context={"traceparent": "t"},
        timeout_seconds=300.0,
    )


def test_all_fields_reach_the_event() -> None:
    event = parse(
        {
            "content": "a",
            "max_tokens": 7,
            "temperature": 0,
            "top_p": 0.5,
            "stop": ["x", "y"],
            "seed": 42,
            "priority": 9,
            "timeout_seconds": 1.5,
            "metadata": {"ticket": 17},
            "stream": True,
            "reasoning": "include",
            "reasoning_effort": "low",
            "backend": "http://elsewhere.example",
        }
    )
    assert event.sampling == Sampling(7, 0.0, 0.5, ("x", "y"), 42)
    assert event.deadline_at == 1001.5
    assert (event.priority, event.stream, event.metadata) == (9, True, {"ticket": 17})
    assert (event.reasoning, event.reasoning_effort) == (Reasoning.INCLUDE, ReasoningEffort.LOW)


def test_null_counts_as_not_given() -> None:
    assert parse({"content": "a"} | dict.fromkeys(PARAMETERS)) == parse({"content": "a"})


@pytest.mark.parametrize("field", ["reasoning", "reasoning_effort"])
@pytest.mark.parametrize("value", [True, 1, "", "Include", "lots", ["low"], {"effort": "low"}])
def test_a_word_that_is_not_known_is_refused_with_those_that_are(field: str, value: object) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse({"content": "a", field: value})
    assert caught.value.code is ErrorCode.INVALID_PARAMETER
    assert caught.value.details is not None
    assert caught.value.details["field"] == field
    assert {"drop", "none"} & set(caught.value.details["allowed"])


def test_an_earlier_versions_digest_of_the_same_request_is_the_same() -> None:
    body = {"content": "a", "max_tokens": 7, "metadata": {"ticket": 17}}
    digest = payload_digest(parse(body))
    assert digest.hex() == EARLIER_DIGEST
    assert payload_digest(parse(body | {"reasoning": "drop", "stream": True})) == digest
    others = [{"reasoning": "include"}, {"reasoning_effort": "low"}, {"reasoning_effort": "none"}]
    digests = {payload_digest(parse(body | other)) for other in others}
    assert len(digests | {digest}) == 4


def test_a_seed_of_minus_one_lets_the_backend_choose() -> None:
    assert parse({"content": "a", "seed": -1}).sampling.seed is None


def test_a_single_stop_string_is_a_list_of_one() -> None:
    assert parse({"content": "a", "stop": "END"}).sampling.stop == ("END",)


def test_the_default_length_never_exceeds_the_longest_allowed() -> None:
    limits = EventsConfig(default_max_tokens=256, max_max_tokens=100)
    assert parse({"content": "a"}, limits).sampling.max_tokens == 100


@pytest.mark.parametrize("body", [None, 5, "a", [], [{"content": "a"}], True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("body", [{}, {"content": None}, {"prompt": "a"}])
def test_a_body_without_content_is_refused(body: object) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body)
    assert caught.value.code is ErrorCode.MISSING_CONTENT_FIELD


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 4097),
        ("max_tokens", 1.5),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("max_tokens", math.inf),
        ("max_tokens", 10**400),
        ("temperature", -0.1),
        ("temperature", 5.1),
        ("temperature", math.nan),
        ("temperature", False),
        ("temperature", 10**400),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_p", "1"),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 31),
        ("stop", 5),
        ("stop", [5]),
        ("stop", ["\ud800"]),
        ("stop", "\0"),
        ("seed", 1.5),
        ("seed", -2),
        ("seed", 2**31),
        ("priority", 10),
        ("priority", -1),
        ("timeout_seconds", 0),
        ("timeout_seconds", 604_801),
        ("timeout_seconds", math.inf),
        ("timeout_seconds", []),
        ("metadata", []),
        ("metadata", "a"),
        ("metadata", {"a": math.inf}),
        ("metadata", {"a": "\ud800"}),
        ("metadata", {"a": "x" * MAX_METADATA_BYTES}),
        ("stream", 1),
        ("stream", "true"),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_and_named(field: str, value: object) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse({"content": "a", field: value})
    assert caught.value.code is ErrorCode.INVALID_PARAMETER
    assert caught.value.details is not None
    assert caught.value.details["field"] == field
    assert f'"{field}"' in caught.value.message
    json.dumps(caught.value.details, allow_nan=False)


def test_metadata_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    with pytest.raises(RequestRefused):
        parse({"content": "a", "metadata": nested})


def test_metadata_of_exactly_the_allowed_length_is_returned_as_given() -> None:
    metadata = {"a": "x" * (MAX_METADATA_BYTES - len('{"a": ""}'))}
    assert parse({"content": "a", "metadata": metadata}).metadata == metadata


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PROMPTS = st.recursive(
    JSON | st.sampled_from(["user", "system", "text", '{"prompt": "a"}', "\0", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(SHAPE_FIELDS + PARAMETERS), inner, max_size=4)
    ),
    max_leaves=10,
)


BODIES = st.fixed_dictionaries(
    {"content": PROMPTS | st.just("a")}, optional=dict.fromkeys(PARAMETERS, JSON)
)


@given(JSON | PROMPTS | BODIES)
def test_any_json_value_becomes_an_event_or_a_refusal_and_nothing_else(body: object) -> None:
    try:
        event = parse(body)
    except RequestRefused as error:
        json.dumps(error.details, allow_nan=False)
    else:
        assert event.messages
        json.dumps(event.metadata, allow_nan=False, ensure_ascii=False).encode()
        for message in event.messages:
            message.content.encode()


def test_a_whole_number_may_be_written_with_a_point() -> None:
    event = parse({"content": "a", "max_tokens": 4.0, "priority": 2.0, "seed": 1e3})
    assert repr((event.sampling.max_tokens, event.priority, event.sampling.seed)) == "(4, 2, 1000)"


def test_stop_strings_have_a_bound_together() -> None:
    assert parse({"content": "a", "stop": ["x" * MAX_STOP_CHARACTERS]}).sampling.stop
    with pytest.raises(RequestRefused) as caught:
        parse({"content": "a", "stop": ["x" * MAX_STOP_CHARACTERS, "y"]})
    assert caught.value.details is not None
    assert caught.value.details["max_characters"] == MAX_STOP_CHARACTERS


@pytest.mark.parametrize(
    "metadata", [{"a": [10**4200] * 200}, {"a": ["x"] * 9000}, {str(n): None for n in range(9000)}]
)
def test_metadata_that_is_far_too_long_is_not_even_written_down(
    metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai_ticket_daemon.events.parse.json.dumps", None)
    with pytest.raises(RequestRefused) as caught:
        parse({"content": "a", "metadata": metadata})
    assert caught.value.details is not None
    assert caught.value.details["actual_bytes"] > MAX_METADATA_BYTES
