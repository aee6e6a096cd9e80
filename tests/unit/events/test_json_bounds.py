"""Counting what JSON would make stops where it is known, however long the rest is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.events import json_bounds
from ai_ticket_daemon.events.json_bounds import Excess, Excessive, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VALUES = 100
MANY = 20_000
COMMAS = b'"' + b"," * MANY + b'"'
"""A string that makes it necessary to look closer."""


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the brackets and commas are that were looked at."""
    seen: list[int] = []
    structure = json_bounds.structure

    def noted(*args: object, **named: object) -> Iterator[tuple[int, int]]:
        for token, position in structure(*args, **named):  # type: ignore[arg-type]
            if token != json_bounds.PAUSE:
                seen.append(position)
            yield token, position

    monkeypatch.setattr(json_bounds, "structure", noted)
    return seen


def test_strings_that_hold_commas_are_one_value_each(looked_at: list[int]) -> None:
    assert values_of(b"[%s,%s]" % (COMMAS, COMMAS), max_values=MAX_VALUES) == 3
    assert len(looked_at) == 3


def test_brackets_that_close_nothing_end_the_count(looked_at: list[int]) -> None:
    assert values_of(b"[" + COMMAS + b"]" * MANY, max_values=MAX_VALUES) == 2
    assert len(looked_at) == 3


@pytest.mark.parametrize("string", [b'","', b'"["', b'""'])
def test_strings_with_nothing_between_them_are_too_many_values(string: bytes) -> None:
    with pytest.raises(Excessive) as caught:
        values_of(b"[" + COMMAS + string * MANY + b"]", max_values=MAX_VALUES)
    assert caught.value.excess is Excess.VALUES


def test_each_value_may_have_a_name_and_be_a_string() -> None:
    members = [COMMAS + b":" + COMMAS] + [b'"%d":"%d"' % (n, n) for n in range(MAX_VALUES - 2)]
    assert values_of(b"{" + b",".join(members) + b"}", max_values=MAX_VALUES) == MAX_VALUES
