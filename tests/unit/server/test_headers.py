from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.headers import (
    Preferences,
    idempotency_key,
    preferences,
    prefers_ndjson,
    value_of,
    wait_seconds,
)


@pytest.mark.parametrize(
    ("value", "respond_async", "seconds"),
    [
        ("", False, None),
        ("respond-async", True, None),
        ("Respond-Async", True, None),
        ("wait=10", False, 10),
        ("wait=0", False, 0),
        ("WAIT = 10", False, 10),
        ('wait="10"', False, 10),
        ("respond-async, wait=10", True, 10),
        ("respond-async,wait=10", True, 10),
        ("wait=10 , respond-async ,", True, 10),
        # An empty value is the same as none, quoted or not.
        ("respond-async=", True, None),
        ('respond-async=""', True, None),
        # Parameters do not get in the way.
        ("respond-async; foo=bar, wait=3;x", True, 3),
        ('wait=10; foo="a, b; c", respond-async', True, 10),
        # Others are ignored, also where they look alike.
        ('handling=lenient, foo="respond-async, wait=1", respond-async', True, None),
        ('return=minimal; x="\\", wait=1"', False, None),
        ("wait-a-minute=5", False, None),
        # Of one given twice the first counts, even if it makes no sense.
        ("wait=1, wait=2", False, 1),
        ("wait=soon, wait=2", False, None),
        # What cannot be understood is ignored.
        ("wait", False, None),
        ("wait=-1", False, None),
        ("wait=1.5", False, None),
        ("wait=1e3", False, None),
        ("wait=9999999999", False, None),
        ("wait=\u0663", False, None),
        ("respond-async=true", False, None),
        ("respond async", False, None),
        ("=, ;, \", '", False, None),
        ("wait=10 20", False, None),
    ],
)
def test_a_preference_is_read_as_its_standard_says(
    value: str, respond_async: bool, seconds: int | None
) -> None:
    assert preferences(value) == Preferences(respond_async, seconds)


@settings(deadline=None)
@given(st.text(alphabet=' ,;="\\wait1respond-async\x00é', max_size=60))
def test_no_preference_is_too_odd_to_be_read(value: str) -> None:
    wishes = preferences(value)
    assert wishes.wait_seconds is None or wishes.wait_seconds >= 0


def test_patience_is_none_only_for_a_client_that_waits_for_the_outcome() -> None:
    assert Preferences().patience_seconds is None
    assert Preferences(respond_async=True).patience_seconds == 0
    assert Preferences(wait_seconds=7).patience_seconds == 7
    assert Preferences(respond_async=True, wait_seconds=7).patience_seconds == 7


def test_several_fields_of_one_name_are_one_list() -> None:
    headers = [(b"prefer", b"respond-async"), (b"host", b"a"), (b"prefer", b" wait=4")]
    assert preferences(value_of(headers, b"prefer")) == Preferences(True, 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/x-ndjson", True),
        ("Application/X-NDJSON", True),
        ("application/x-ndjson, application/json", True),
        ("application/json, application/x-ndjson;q=0.9", False),
        ("application/json;q=0.5, application/x-ndjson;q=0.9", True),
        ("application/x-ndjson;q=0", False),
        ("application/x-ndjson; charset=utf-8", True),
        ("application/x-ndjson;q=oops", False),
        ("text/html, */*;q=0.1, application/x-ndjson", True),
    ],
)
def test_ndjson_is_what_a_client_gets_that_names_it(value: str, expected: bool) -> None:
    assert prefers_ndjson(value) is expected


def test_an_idempotency_key_is_taken_as_it_comes() -> None:
    assert idempotency_key([]) is None
    assert idempotency_key([(b"idempotency-key", b' "8e03978e" ')]) == '"8e03978e"'
    assert idempotency_key([(b"idempotency-key", b"k" * 255)]) == "k" * 255


@pytest.mark.parametrize(
    "values", [[b""], [b"  "], [b"k" * 256], [b"a\tb"], [b"\xe4"], [b"a", b"a"], [b"a", b"b"]]
)
def test_a_key_that_cannot_be_kept_is_refused(values: list[bytes]) -> None:
    with pytest.raises(RequestRefused) as caught:
        idempotency_key([(b"idempotency-key", value) for value in values])
    assert caught.value.code is ErrorCode.INVALID_PARAMETER
    assert caught.value.details == {"field": "Idempotency-Key", "max_characters": 255}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0),
        (["0"], 0),
        (["2.5"], 2.5),
        (["300"], 300),
        (["007"], 7),
        (["300.0"], 300),
        (["186.7141464087256"], 186.7141464087256),
    ],
)
def test_a_wait_is_a_number_of_seconds(values: list[str], expected: float) -> None:
    assert wait_seconds(values) == expected


@pytest.mark.parametrize(
    "values",
    [[""], ["-1"], ["301"], ["300.1"], ["1e2"], ["nan"], ["inf"], ["1", "1"], ["\u0663"], [" 1"]],
)
def test_any_other_wait_is_refused(values: list[str]) -> None:
    with pytest.raises(RequestRefused) as caught:
        wait_seconds(values)
    assert caught.value.code is ErrorCode.INVALID_PARAMETER
    assert (caught.value.details or {})["field"] == "wait"
