from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.json_bounds import MAX_JSON_DEPTH, MAX_JSON_VALUES
from ai_ticket_daemon.server.batch_body import PAUSE, VALUES_PER_EVENT, BatchItems
from ai_ticket_daemon.server.body import check_media_type, decode_json
from ai_ticket_daemon.server.headers import NDJSON_TYPE


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


def batch(
    data: bytes, media_type: str, *, max_items: int, max_item_bytes: int = 2**20
) -> list[Any]:
    found = BatchItems(data, media_type, max_items=max_items, max_item_bytes=max_item_bytes)
    return [item for item in found if item is not PAUSE]


def test_a_batch_is_an_array_or_lines() -> None:
    for data, media_type in (
        (b'[{"a": 1}, 2, null]', "application/json"),
        (b'{"a": 1}\n\n 2\r\n  \nnull', "application/x-ndjson"),
    ):
        assert batch(data, media_type, max_items=3) == [{"a": 1}, 2, None]


def test_a_line_that_is_no_json_is_told_in_its_place() -> None:
    items = batch(b'1\n{"a"\n\xff\n' + b"[" * 99 + b"\n2", "application/x-ndjson", max_items=9)
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
        (b"[,]", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1}", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1],", "application/json", ErrorCode.INVALID_REQUEST),
        (b'["a]', "application/json", ErrorCode.INVALID_REQUEST),
        (b"[1]x", "application/json", ErrorCode.INVALID_REQUEST),
        (b"x[1]", "application/json", ErrorCode.INVALID_REQUEST),
        (b"[" * 999_999, "application/json", ErrorCode.PAYLOAD_TOO_LARGE),
        (
            b'[{"a":[]}' + b',{"a":[]}' * 99_999 + b"]",
            "application/json",
            ErrorCode.PAYLOAD_TOO_LARGE,
        ),
        (b"[" + b"[0],[0]," * 9_999 + b"0]", "application/json", ErrorCode.PAYLOAD_TOO_LARGE),
        (
            b"[0" + b",0" * 9_999 + b"]\n[0" + b",0" * 9_999 + b"]",
            "application/x-ndjson",
            ErrorCode.PAYLOAD_TOO_LARGE,
        ),
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
        batch(data, media_type, max_items=2)
    assert caught.value.code is code


def test_a_batch_may_be_sent_in_either_form() -> None:
    allowed = ("application/json", "application/x-ndjson")
    assert (
        check_media_type("application/X-NDJSON; charset=utf-8", "", allowed=allowed) == allowed[1]
    )
    with pytest.raises(RequestRefused, match="or 'content-type: application/x-ndjson'"):
        check_media_type("text/csv", "", allowed=allowed)


@settings(deadline=None)
@given(st.lists(_VALUES, max_size=4), st.sampled_from([None, 1]))
def test_an_array_is_read_item_by_item_as_it_would_be_as_a_whole(
    values: list[Any], indent: int | None
) -> None:
    data = json.dumps(values, ensure_ascii=False, indent=indent).encode("utf-8", "replace")
    if values:
        assert repr(batch(data, "application/json", max_items=9)) == repr(json.loads(data))


@settings(deadline=None)
@given(st.text('[]{}",:\\0 x', max_size=14).map(lambda text: f"[{text}]".encode()))
def test_an_array_is_taken_if_the_standard_library_takes_it(data: bytes) -> None:
    try:
        expected = json.loads(data)
    except ValueError:
        with pytest.raises(RequestRefused):
            batch(data, "application/json", max_items=99)
    else:
        if expected:
            assert batch(data, "application/json", max_items=99) == expected


@pytest.mark.parametrize(
    ("data", "details"),
    [
        (b'[\n1,\n {"a" 2}]', {"line": 3, "column": 7}),
        (b"[1,\n2,\n3", {"line": 3, "column": 2}),
        ('["é", é]'.encode(), {"line": 1, "column": 7}),
        (b'[1, "\xff"]', {"offset": 5}),
    ],
)
def test_the_place_of_a_mistake_is_told_as_one_of_the_whole_batch(
    data: bytes, details: dict[str, int]
) -> None:
    with pytest.raises(RequestRefused) as caught:
        batch(data, "application/json", max_items=9)
    assert caught.value.details == details


def test_a_byte_order_mark_is_skipped_before_a_body_and_before_each_line() -> None:
    mark = b"\xef\xbb\xbf"
    assert decode_json(mark + b"[1]") == [1]
    assert batch(mark + b"[1]", "application/json", max_items=9) == [1]
    lines = mark + b"1\n" + mark + b"2\n" + mark + b"\n3\n" + mark
    assert batch(lines, "application/x-ndjson", max_items=9) == [1, 2, 3]


def test_what_is_too_large_for_one_event_is_refused_in_its_place() -> None:
    deep = b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1)
    wide = b"[0" + b",0" * MAX_JSON_VALUES + b"]"
    items = [b"1", deep, wide, b'"' + b"x" * 2**20 + b'"', b"2"]
    for data, media_type in (
        (b"[" + b", ".join(items) + b"]", "application/json"),
        (b"\n".join(items), "application/x-ndjson"),
    ):
        found = batch(data, media_type, max_items=100)
        assert [found[0], found[4]] == [1, 2]
        assert [error.code for error in found[1:4]] == [
            ErrorCode.INVALID_REQUEST,
            ErrorCode.PAYLOAD_TOO_LARGE,
            ErrorCode.PAYLOAD_TOO_LARGE,
        ]


def test_a_line_that_is_too_long_is_refused_in_its_place_whatever_is_in_it() -> None:
    most = MAX_JSON_VALUES + 9 * VALUES_PER_EVENT
    bomb = b"[" + b"0," * most + b"0]"
    lines = batch(
        b'{"content":"a"}\n' + bomb + b"\n1", NDJSON_TYPE, max_items=9, max_item_bytes=most
    )
    assert [type(line) for line in lines] == [dict, RequestRefused, int]
    assert lines[1].details["line"] == 2


def test_an_event_of_too_many_values_is_refused_before_any_of_them_is_made() -> None:
    with pytest.raises(RequestRefused, match="10000 JSON values") as caught:
        decode_json(b"[" + b"{}," * 10_000 + b"{}]")
    assert caught.value.details == {"max_values": MAX_JSON_VALUES}
    text = b'{"content": "' + b"a, b [c] {d}, " * 9_000 + b'"}'
    assert decode_json(text)


def test_a_line_that_is_no_json_is_named_by_its_number_in_the_body() -> None:
    body = b'{"content": "a"}\n{"content": }\n\n\n{"content"\n2'
    items = [
        item
        for item in BatchItems(body, "application/x-ndjson", max_items=9, max_item_bytes=99)
        if item is not PAUSE
    ]
    told = [item.message for item in items if isinstance(item, RequestRefused)]
    assert ["line 2," in told[0], "line 5," in told[1]] == [True, True], told
    assert len(told) == 2


def test_what_is_wrong_with_a_line_is_told_with_its_number_and_with_an_item_is_not() -> None:
    """Blank lines count here, although they do not for ``index``."""
    wrong = RequestRefused(ErrorCode.INVALID_PARAMETER, "No.", details={"field": "priority"})
    told = []
    for media_type, body in (
        ("application/x-ndjson", b"1\n\n2\r\n\n\n3"),
        ("application/json", b"[1,\n\n2,\n\n\n3]"),
    ):
        items = BatchItems(body, media_type, max_items=9, max_item_bytes=99)
        found = [items.placed(wrong) for item in items if item in (2, 3)]
        told.append([(error.message, error.details) for error in found])
    assert told == [
        [
            ("Line 3: No.", {"field": "priority", "line": 3}),
            ("Line 6: No.", {"field": "priority", "line": 6}),
        ],
        [("No.", {"field": "priority"})] * 2,
    ]


def test_a_line_that_is_too_long_or_too_deep_is_named_by_its_number() -> None:
    body = b"1\n" + b"[" * 99 + b"]" * 99 + b'\n"' + b"x" * 300 + b'"\n"\xff"'
    items = batch(body, "application/x-ndjson", max_items=9, max_item_bytes=250)
    assert [item.details["line"] for item in items[1:]] == [2, 3, 4]
    assert [item.message.partition(":")[0] for item in items[1:]] == ["Line 2", "Line 3", "Line 4"]
