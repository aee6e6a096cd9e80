"""What servers say of themselves can be kept, logged and shown."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ticket_daemon.backends.text.cleaning import (
    LONGEST_NAME,
    LONGEST_SENTENCE,
    CharacterJoiner,
    clean_name,
    clean_sentence,
    whole_number,
)

ANY = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("koboldcpp/model-7b.Q4_K_M", "koboldcpp/model-7b.Q4_K_M"),
        ("m\udcff", "m\ufffd"),
        ("m\x00\x1b[31mred\x07", "m\ufffd\ufffd[31mred\ufffd"),
        ("gpt\u202e4\u200b", "gpt\ufffd4\ufffd"),
        ("two\nlines\u2028three", "two\ufffdlines\ufffdthree"),
        ("Größe-模型", "Größe-模型"),
        ("x" * 10_000_000, "x" * (LONGEST_NAME - 1) + "…"),
    ],
)
def test_a_name_is_one_line_of_visible_characters(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


@given(ANY)
def test_any_name_and_any_sentence_can_be_kept_and_is_bounded(text: str) -> None:
    for cleaned, longest in (
        (clean_name(text), LONGEST_NAME),
        (clean_sentence(text), LONGEST_SENTENCE),
    ):
        assert cleaned.isprintable()
        assert len(cleaned.encode()) <= 4 * longest
        assert len(cleaned) <= longest


def test_a_sentence_of_many_lines_is_one() -> None:
    assert clean_sentence(" CUDA error:\n\tout  of memory\r\n") == "CUDA error: out of memory"


@pytest.mark.parametrize(("value", "number"), [(0, 0), (7, 7), (7.0, 7), (2**53 - 1, 2**53 - 1)])
def test_a_count_is_a_whole_number(value: object, number: int) -> None:
    assert whole_number(value) == number


@pytest.mark.parametrize(
    "value", [-1, 7.5, 2**53, 10**400, math.inf, -math.inf, math.nan, True, "7", None, [], {}]
)
def test_what_is_no_count_that_can_be_kept_is_not_known(value: object) -> None:
    assert whole_number(value) is None


@given(ANY, st.lists(st.integers(0, 40)))
def test_characters_cut_in_two_arrive_whole(text: str, cuts: list[int]) -> None:
    halves = text.encode("utf-16-le", "surrogatepass")
    units = [
        halves[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(halves), 2)
    ]
    places = sorted({0, len(units), *(min(cut, len(units)) for cut in cuts)})
    pieces = ["".join(units[a:b]) for a, b in itertools.pairwise(places)]
    joiner = CharacterJoiner()
    joined = "".join(map(joiner.feed, pieces)) + joiner.finish()
    assert joined == halves.decode("utf-16-le", "replace")
