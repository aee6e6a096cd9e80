from __future__ import annotations

import math
from typing import Any

import pytest

from ai_ticket_daemon.backends.failure import BackendError
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.validate import validate
from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.values.schema import settings_of
from ai_ticket_daemon.errors import RequestRefused
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.limits import (
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_TOKENS,
    RANGES,
    TIMEOUT_SECONDS,
    TOP_P,
    Range,
)
from ai_ticket_daemon.events.parse import parse_event

WIDEST = EventsConfig(max_max_tokens=MAX_TOKENS.most)
OF_A_BACKEND = ("max_tokens", "temperature", "top_p", "seed")


def parse(field: str, value: object) -> Event:
    return parse_event(
        {"content": "a", field: value}, limits=WIDEST, now=0.0, event_id="id", trace_context={}
    )


def accepts_request(field: str, value: object) -> bool:
    try:
        parse(field, value)
    except RequestRefused:
        return False
    return True


def accepts_sending(field: str, value: Any) -> bool:
    try:
        validate(GenerationRequest((Message(Role.USER, "a"),), Sampling(**{field: value})))
    except BackendError:
        return False
    return True


def around(allowed: Range[int] | Range[float]) -> list[float]:
    step = 1 if allowed.whole else 1e-6
    ends = (allowed.least, allowed.most)
    return [end + offset for end in ends for offset in (-step, 0, step)]


@pytest.mark.parametrize("field", RANGES)
def test_a_request_is_held_against_the_range_of_each_number(field: str) -> None:
    for value in around(RANGES[field]):
        assert accepts_request(field, value) is RANGES[field].admits(value), value


@pytest.mark.parametrize("field", OF_A_BACKEND)
def test_a_request_and_a_server_are_held_against_the_same_range(field: str) -> None:
    for value in around(RANGES[field]):
        assert accepts_sending(field, value) is accepts_request(field, value), value


@pytest.mark.parametrize(
    "strings",
    [
        ("x",) * MAX_STOP_STRINGS,
        ("x",) * (MAX_STOP_STRINGS + 1),
        ("x" * MAX_STOP_CHARACTERS,),
        ("x" * MAX_STOP_CHARACTERS, "y"),
        ("",),
        ("\0",),
        ("\ud800",),
        (1,),
    ],
    ids=lambda strings: f"{len(strings)} x {strings[0]!r:.8}",
)
def test_a_request_and_a_server_are_held_against_the_same_rule_of_stop_strings(
    strings: tuple[Any, ...],
) -> None:
    assert accepts_sending("stop", strings) is accepts_request("stop", list(strings))


@pytest.mark.parametrize("value", [True, "1", None, [], math.nan, math.inf, 10**400])
def test_a_range_admits_numbers_within_it_and_nothing_else(value: object) -> None:
    for allowed in RANGES.values():
        assert not allowed.admits(value)


def test_a_range_says_what_it_admits() -> None:
    assert str(MAX_TOKENS) == "a whole number from 1 to 1000000"
    assert str(TOP_P) == "a number above 0 to 1"
    assert TOP_P.schema() == {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}
    assert not TOP_P.admits(0)
    assert not MAX_TOKENS.admits(4.0)


def test_every_default_is_one_that_a_client_could_have_sent() -> None:
    for allowed in RANGES.values():
        assert allowed.admits(allowed.default)


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("default_max_tokens", MAX_TOKENS),
        ("max_max_tokens", MAX_TOKENS),
        ("default_timeout_seconds", TIMEOUT_SECONDS),
    ],
)
def test_a_setting_keeps_within_what_a_client_may_send(
    key: str, allowed: Range[int] | Range[float]
) -> None:
    kind = settings_of(EventsConfig)[key][1].rule.kind
    assert kind.endswith(f" to {allowed.most:g}" if not allowed.whole else f" to {allowed.most}")
