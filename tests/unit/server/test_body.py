from __future__ import annotations

import pytest

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.body import MAX_JSON_DEPTH, check_media_type, decode_json


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", 'application/json; charset="UTF-8"'],
)
def test_json_in_utf8_is_taken(content_type: str) -> None:
    check_media_type(content_type, "identity")


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("", ""),
        ("text/plain", ""),
        ("application/x-www-form-urlencoded", ""),
        ("application/jsonx", ""),
        ("application/json; charset=latin-1", ""),
        ("application/json", "gzip"),
    ],
)
def test_any_other_body_is_refused(content_type: str, encoding: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_media_type(content_type, encoding)
    assert caught.value.code is ErrorCode.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \n",
        b"{",
        b"\xff\xfe",
        b'{"a": "\xc3"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1,}',
        b"1" * 5000,
        b"[" * 100_000,
        b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1),
        b'{"a":' * (MAX_JSON_DEPTH + 1) + b"1" + b"}" * (MAX_JSON_DEPTH + 1),
    ],
)
def test_a_body_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        decode_json(data)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_the_place_of_a_mistake_is_told() -> None:
    with pytest.raises(RequestRefused) as caught:
        decode_json(b'{"content":\n "a" "b"}')
    assert caught.value.details == {"line": 2, "column": 6}


def test_nesting_as_deep_as_allowed_is_taken_however_many_brackets_there_are() -> None:
    deep = b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH
    assert decode_json(deep) is not None
    wide = b"[" + b",".join([b"{}"] * 1000) + b"]"
    assert decode_json(wide) == [{}] * 1000


def test_of_a_name_given_twice_the_last_one_counts() -> None:
    assert decode_json(b'{"a": 1, "a": 2}') == {"a": 2}
