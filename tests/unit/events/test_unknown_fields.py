from __future__ import annotations

import inspect
import re

import pytest

from ai_ticket_daemon.events import parse
from ai_ticket_daemon.events.limits import FIELDS
from ai_ticket_daemon.events.unknown_fields import MOST_WARNINGS, likely_mistakes


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("maxtokens", "max_tokens"),
        ("max-tokens", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("temprature", "temperature"),
        ("timeout_second", "timeout_seconds"),
        ("priorty", "priority"),
    ],
)
def test_a_misspelt_field_is_named_with_the_one_that_was_meant(field: str, meant: str) -> None:
    (warning,) = likely_mistakes({"content": "Hello", field: 1})
    assert warning == f'"{field}" is not known and was ignored; did you mean "{meant}"?'


@pytest.mark.parametrize("field", ["model", "user", "x", "", "n" * 1000, "max_tokens"])
def test_what_looks_like_no_field_is_ignored_without_a_word(field: str) -> None:
    assert likely_mistakes({"content": "Hello", field: 1}) == ()


def test_no_field_is_suggested_that_is_there_already() -> None:
    assert likely_mistakes({"content": "Hello", "max_tokens": 1, "maxtokens": 2}) == ()


def test_warnings_are_bounded_and_no_body_breaks_them() -> None:
    many = {f"maxtokens{' ' * n}": 1 for n in range(30)}
    assert len(likely_mistakes(many)) <= MOST_WARNINGS
    bodies: tuple[object, ...] = (None, [], "text", 1)
    for body in bodies:
        assert likely_mistakes(body) == ()


def test_the_known_fields_are_those_that_are_read() -> None:
    source = inspect.getsource(parse)
    read = set(re.findall(r'body\.get\("(\w+)"\)|body,\s+"(\w+)"', source))
    assert {name for pair in read for name in pair if name} - {"messages"} == set(FIELDS)
