from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.body import MAX_JSON_DEPTH, check_media_type, decode_batch, decode_json


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


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(_VALUES, st.booleans())
def test_the_fast_reader_reads_what_the_standard_library_reads(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=1)
    data = text.encode("utf-8", "replace")
    assert repr(decode_json(data)) == repr(json.loads(data))


@settings(deadline=None)
@given(st.binary(max_size=30) | st.text('{}[]",:\\u0dD8ftn-+.eE1 ', max_size=12).map(str.encode))
def test_what_the_fast_reader_takes_the_standard_library_takes(data: bytes) -> None:
    try:
        value = decode_json(data)
    except RequestRefused:
        with pytest.raises(ValueError):
            json.loads(data.decode(), parse_constant=lambda name: float(f"not {name}"))
    else:
        assert repr(value) == repr(json.loads(data.decode()))


def test_a_batch_is_an_array_or_lines() -> None:
    for data, media_type in (
        (b'[{"a": 1}, 2, null]', "application/json"),
        (b'{"a": 1}\n\n 2\r\n  \nnull', "application/x-ndjson"),
    ):
        assert decode_batch(data, media_type, max_items=3) == [{"a": 1}, 2, None]


def test_a_line_that_is_no_json_is_told_in_its_place() -> None:
    items = decode_batch(
        b'1\n{"a"\n\xff\n' + b"[" * 99 + b"\n2", "application/x-ndjson", max_items=9
    )
    assert items[0] == 1
    assert items[4] == 2
    for item in items[1:4]:
        assert isinstance(item, RequestRefused)
        assert item.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("data", "media_type", "code"),
    [
        (b"", "application/x-ndjson", ErrorCode.INVALID_REQUEST),
        (b" \n\r\n", "application/x-ndjson", ErrorCode.INVALID_REQUEST),
        (b"", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[]", "application/json", ErrorCode.INVALID_REQUEST),
        (b"{}", "application/json", ErrorCode.INVALID_REQUEST),
        (b'{"content": "a"}', "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1,]", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1]\n[2]", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1,2,3]", "application/json", ErrorCode.PAYLOAD_TOO_LARGE),
        (b"1\n2\n3", "application/x-ndjson", ErrorCode.PAYLOAD_TOO_LARGE),
        (b"{\n{\n{", "application/x-ndjson", ErrorCode.PAYLOAD_TOO_LARGE),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(
    data: bytes, media_type: str, code: ErrorCode
) -> None:
    with pytest.raises(RequestRefused) as caught:
        decode_batch(data, media_type, max_items=2)
    assert caught.value.code is code


def test_a_batch_may_be_sent_in_either_form() -> None:
    allowed = ("application/json", "application/x-ndjson")
    assert (
        check_media_type("application/X-NDJSON; charset=utf-8", "", allowed=allowed) == allowed[1]
    )
    with pytest.raises(RequestRefused, match="or 'content-type: application/x-ndjson'"):
        check_media_type("text/csv", "", allowed=allowed)
