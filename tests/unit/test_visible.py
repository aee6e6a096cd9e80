"""What others wrote cannot act on a terminal, and nothing of it is hidden."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest

from ai_ticket_daemon.config.log import LogFormat
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.visible import visible, visible_in, visible_json

ACTING = [
    *(chr(code) for code in range(0x20) if chr(code) not in "\t\n"),
    *(chr(code) for code in range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff",
    "\ud800",
    "\U000e0041",
]


@pytest.mark.parametrize("acting", ACTING, ids=lambda text: f"U+{ord(text):04X}")
def test_what_acts_on_a_terminal_is_shown_instead(acting: str) -> None:
    shown = visible(f"a{acting}b")
    assert acting not in shown
    assert shown.startswith("a\\")
    assert shown.endswith("b")
    assert acting not in visible_json({"text": acting})
    assert json.loads(visible_json({f"k{acting}": [acting]})) == {f"k{acting}": [acting]}


def test_no_control_character_of_unicode_gets_through() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = {c for c in visible(everything) if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}}
    assert left == {"\n", "\t"}
    assert not {c for c in visible(everything) if unicodedata.bidirectional(c) in
                {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}}  # fmt: skip


def test_text_stays_as_it_is() -> None:
    for text in ("", "ünï 日本 \U0001f469\u200d\U0001f680 עברית", "two\nlines\tand a tab", "\\x1b"):
        assert visible(text) == text
    assert visible("dos\r\nlines") == "dos\nlines"
    assert visible("\x1b[31mred\r\u202e\x9b") == "\\x1b[31mred\\x0d\\u202e\\x9b"


def test_values_are_made_visible_at_every_depth() -> None:
    assert visible_in({"\x1b": ["\r", {"a": "\x07"}], "n": 1, "none": None}) == {
        "\\x1b": ["\\x0d", {"a": "\\x07"}],
        "n": 1,
        "none": None,
    }


def test_a_log_for_people_shows_what_others_sent() -> None:
    stream = io.StringIO()
    log = Logs(log_format=LogFormat.TEXT, stream=stream).logger(actor="a")
    log.warning("attempt_failed", reason="\x1b]0;title\x07 \u202e", details=["\x9b2J"])
    try:
        raise ValueError("\x1b]0;title\x07 \u202e")
    except ValueError as error:
        log.error("worker_crashed", exc_info=error)
    assert "ValueError: \\x1b]0;title\\x07 \\u202e" in stream.getvalue()
    assert not set(stream.getvalue()) & {"\x1b", "\x07", "\x9b", "\u202e"}
