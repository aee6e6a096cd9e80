"""What the end of a completion is called, and what it means."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.finish import read_reason, settle_reason
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen


def meaning(reason: object, *, has_text: bool) -> str | Seen | None:
    try:
        word = read_reason(reason)
        return None if word is None else settle_reason(word, has_text=has_text)
    except AttemptFailed as failure:
        return failure.observation.seen


@pytest.mark.parametrize(
    ("reason", "with_text", "without_text"),
    [
        (None, None, None),
        ("null", None, None),
        ("", None, None),
        ("stop", "stop", "stop"),
        ("STOP", "stop", "stop"),
        ("end_turn", "stop", "stop"),
        ("length", "length", "length"),
        ("max_tokens", "length", "length"),
        ("content_filter", Seen.FILTERED, Seen.FILTERED),
        ("error", Seen.HALF_ANSWER, Seen.HALF_ANSWER),
        ("abort", Seen.HALF_ANSWER, Seen.HALF_ANSWER),
        ("cancelled", Seen.HALF_ANSWER, Seen.HALF_ANSWER),
        ("tool_calls", "stop", Seen.TOOL_CALL),
        ("something new", "stop", Seen.HALF_ANSWER),
        ("x" * 1_000_000, "stop", Seen.HALF_ANSWER),
        (7, Seen.WRONG_SHAPE, Seen.WRONG_SHAPE),
        ([], Seen.WRONG_SHAPE, Seen.WRONG_SHAPE),
    ],
)
def test_a_half_answer_is_no_success(
    reason: object, with_text: object, without_text: object
) -> None:
    assert meaning(reason, has_text=True) == with_text
    assert meaning(reason, has_text=False) == without_text
