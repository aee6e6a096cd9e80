"""The JSON of answers: read quickly as a rule, and as leniently as ever where it is odd."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ai_ticket_daemon.backends.bounds import MOST_PARTS
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.replies import parse_json

WORDS = [
    b'"\\ud83d"',
    b'"\\ude00"',
    b'"\\ud83d\\ude00"',
    b"1e999",
    b"-1e999",
    b"NaN",
    b"-Infinity",
    b"1" * 4000,
    b"1" * 5000,
    b"-0",
    b"-0.0",
    b"1.0",
    b"123456789012345678901234567890",
    b'{"a":1,"a":2}',
    b'"\xff"',
    b"\xef\xbb\xbf{}",
    b"[1,]",
    b"01",
    b"1.",
    b'"\x01"',
    b'"\x7f"',
    b'"a\tb"',
    b'"\\u0000"',
    b" 1 ",
    b"\n1\t",
    b"\x0c1",
    b'"\xed\xa0\xbd"',
    b"0.1e-400",
    b"1E5",
    b"9007199254740993.0",
    b"1.7976931348623159e308",
    b'"\\/"',
    b'"\\x"',
    b"[]x",
    b"null",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"5e-324",
    b"0.30000000000000004",
    b"",
    b" ",
    b"nul",
    b"[" * 5000,
    b'{"a":' * 5000,
    b'{"a":NaN,"b":"\\udc00"}',
    b"\xef\xbb\xbf\xff",
    b"'a'",
    b"{a:1}",
    b"[1 2]",
    b"+1",
    b"0x1",
    b"1_0",
    b"\xc2\xa01",
    b"true false",
]
EVENT = json.dumps(
    {"choices": [{"delta": {"content": " wörd", "x": [1.5, None, True]}}], "usage": {"a": -3}}
).encode()


def expected(data: bytes) -> Any:
    """Return what Python's own reader makes of it, which gives one word for each odd number."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Seen.NOT_UTF8
    try:
        return json.loads(text, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return Seen.NOT_JSON


def found(data: bytes) -> Any:
    try:
        return parse_json(data)
    except AttemptFailed as failure:
        return failure.observation.seen


@pytest.mark.parametrize("word", WORDS, ids=lambda word: repr(word[:20]))
def test_odd_json_is_read_or_refused_as_python_does_it(word: bytes) -> None:
    assert repr(found(word)) == repr(expected(word))


def test_mutated_events_are_read_or_refused_as_python_does_it() -> None:
    chance = random.Random(3)
    good = 0
    for _ in range(3000):
        changed = bytearray(EVENT)
        for _ in range(chance.choice((1, 1, 2))):
            at = chance.randrange(len(changed) + 1)
            piece = chance.choice((*WORDS[:12], *b'[]{},:"\\ 1e.-\xff\x00tn', b"", b"0"))
            new = bytes([piece]) if isinstance(piece, int) else piece
            changed[at : at + chance.choice((0, 1, 1, 3))] = new
        assert repr(found(bytes(changed))) == repr(expected(bytes(changed))), bytes(changed)
        good += not isinstance(found(bytes(changed)), Seen)
    assert good > 300


@pytest.mark.parametrize("opening", [b"[", b"{", b"[],"])
def test_more_parts_than_any_answer_needs_are_refused(opening: bytes) -> None:
    assert found(b"[" + opening * (MOST_PARTS + 1)) is Seen.TOO_LARGE
