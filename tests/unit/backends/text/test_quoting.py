"""A server's words are told, unless they repeat a ticket or a credential."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.observation import Observation, Seen
from ai_ticket_daemon.backends.text.quoting import quotable
from ai_ticket_daemon.config.values.secret import Secret

TICKET = "My name is Jane Doe and the printer on the third floor prints blank pages."


@pytest.mark.parametrize(
    ("words", "texts", "told"),
    [
        ("CUDA out of memory", [TICKET], True),
        ("cannot parse: the printer on the third floor prints blank", [TICKET], False),
        (f"input {TICKET!r} is too long", ["hello", TICKET], False),
        ("no such thing: hello", ["hello"], False),
        ("no such thing", ["a"], True),
        ("the key sk-1234567890 is wrong", [], False),
    ],
)
def test_words_are_told_unless_they_repeat_what_nobody_else_may_read(
    words: str, texts: list[str], told: bool
) -> None:
    seen = Observation(Seen.STATUS, status=400, words=words)
    kept = quotable(seen, Secret("sk-1234567890"), texts).words
    assert kept == (words if told else None)


def test_no_run_of_a_ticket_longer_than_a_few_words_is_told() -> None:
    text = "".join(chr(ord("a") + (7 * at * at + at) % 26) for at in range(400))
    for begin in range(60):
        words = f"bad value {text[begin : begin + 30]} there"
        assert quotable(Observation(Seen.STATUS, words=words), None, [text]).words is None
