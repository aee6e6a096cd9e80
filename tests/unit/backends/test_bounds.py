"""An answer is as long as its tokens can be."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.bounds import MOST_BYTES, answer_bounds

KIB = 1024


@pytest.mark.parametrize(
    ("max_tokens", "request_bytes", "text", "stream"),
    [
        (1, 0, 64 * KIB + 128, 64 * KIB + 2176),
        (256, 1000, 64 * KIB + 6000 + 32 * KIB, 64 * KIB + 6000 + 544 * KIB),
        (4096, 0, 64 * KIB + 512 * KIB, 64 * KIB + 8704 * KIB),
        (1_000_000, 0, MOST_BYTES, 64 * KIB + 2_176_000_000),
    ],
)
def test_the_bound_grows_with_what_was_asked_for(
    max_tokens: int, request_bytes: int, text: int, stream: int
) -> None:
    bounds = answer_bounds(max_tokens, request_bytes)
    assert (bounds.text, bounds.stream) == (text, stream)


def test_the_longest_text_that_tokens_make_fits() -> None:
    """A token of blanks is long, an escaped emoji costs twelve bytes: both fit on the average."""
    emoji = 12 * 4096
    assert emoji < answer_bounds(4096, 0).text
    assert answer_bounds(4096, 0).text > 32 * 4096
