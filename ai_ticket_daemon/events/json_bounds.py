"""How much a JSON text would make of itself: counted before a value is built of it.

A decoder is one long call that nothing can interrupt, and a byte of JSON may become a hundred bytes
of objects. So values and nesting are bounded first. Counting a text's commas and brackets takes
no time and is enough for nearly all; only where they could be too many are those inside of strings
told apart, in pieces between which others get a turn.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

MAX_JSON_DEPTH = 64
MAX_JSON_VALUES = 10_000
"""How many values one event may be made of, those inside of others counted."""

WINDOW_BYTES = 16_384
"""How much is looked at between two pauses: a few milliseconds if it is nothing but brackets."""

PAUSE = 0
_NEAR_BYTES = 64
_QUOTE, _COMMA, _LIST, _END_OF_LIST = b'",[]'
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_TOKEN = re.compile(rb'[\[\]{},]|"[^"\\]*+(?:\\.[^"\\]*+)*+"|"', re.DOTALL)
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class Excess(StrEnum):
    """What there is too much of."""

    VALUES = "values"
    DEPTH = "depth"


class Excessive(ValueError):
    """There is too much of ``excess``."""

    def __init__(self, excess: Excess) -> None:
        super().__init__(excess)
        self.excess = excess


class Unbalanced(ValueError):
    """No list where there has to be one; ``position`` is where that shows."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def values_at_most(data: bytes) -> int:
    """Return how many values ``data`` holds at the most: each follows a comma or a bracket."""
    return 1 + data.count(b",") + brackets(data)


def brackets(data: bytes) -> int:
    """Return how many lists and objects ``data`` holds at the most; it nests no deeper."""
    return data.count(b"[") + data.count(b"{")


def values_of(data: bytes, *, max_values: int = MAX_JSON_VALUES) -> int:
    """Return how many values ``data`` holds at the most.

    Raises:
        Excessive: there are more than ``max_values``, or they nest deeper than ``MAX_JSON_DEPTH``.
    """
    nested = brackets(data)
    at_most = 1 + data.count(b",") + nested
    if at_most <= max_values and nested <= MAX_JSON_DEPTH:
        return at_most
    values, depth = 1, 0
    # Each value is one string at the most, and has another for its name.
    for token, _ in structure(data, max_strings=2 * max_values):
        if token in _OPENING:
            values, depth = values + 1, depth + 1
        elif token in _CLOSING:
            depth -= 1
            if depth < 0:  # no JSON: whoever decodes it gets no further than this
                break
        elif token == _COMMA:
            values += 1
        if depth > MAX_JSON_DEPTH:
            raise Excessive(Excess.DEPTH)
        if values > max_values:
            raise Excessive(Excess.VALUES)
    return values


def counted(data: bytes, max_values: int) -> Iterator[int | None]:
    """Yield how many values ``data`` holds at last; before that None, where others get a turn.

    Raises:
        Excessive: there are more than ``max_values``.
    """
    values = 1
    for token, _ in structure(data):
        if token == PAUSE:
            yield None
        elif token not in _CLOSING:
            values += 1
            if values > max_values:
                raise Excessive(Excess.VALUES)
    yield values


def items(data: bytes, start: int, max_values: int) -> Iterator[tuple[int, int] | None]:
    """Yield where each item of a list begins and ends.

    The items are as good as what is between their commas: if each of them is JSON, the list is.
    None stands where others get a turn.

    Args:
        data: JSON text.
        start: where the bracket is that opens the list.
        max_values: how many values all items together may be made of.

    Raises:
        Unbalanced: the list does not end, or ``data`` does not end with it.
        Excessive: there are too many values.
    """
    depth, values, count, is_over = 0, 0, 0, False
    for token, position in structure(data, start):
        if token == PAUSE:
            yield None
        elif is_over:
            raise Unbalanced(position)
        elif values > max_values:
            raise Excessive(Excess.VALUES)
        elif token in _OPENING:
            depth, values = depth + 1, values + 1
            if depth == 1:
                start = position + 1
        elif depth > 1:
            if token == _COMMA:
                values += 1
            else:
                depth -= 1
        elif token in (_COMMA, _END_OF_LIST):
            is_over = token == _END_OF_LIST
            if count or not is_over or not is_blank(data, start, position):
                yield start, position
            start, values, count = position + 1, values + 1, count + 1
        else:
            raise Unbalanced(position)
    if not is_over or not is_blank(data, start, len(data)):
        raise Unbalanced(start if is_over else len(data))


def is_blank(data: bytes, start: int, end: int) -> bool:
    """Tell whether there is nothing from ``start`` to ``end``; all of it is copied only if so."""
    near = min(end, start + _NEAR_BYTES)
    return not data[start:near].strip() and not data[near:end].strip()


def structure(
    data: bytes, position: int = 0, *, max_strings: int | None = None
) -> Iterator[tuple[int, int]]:
    """Yield each bracket and comma outside of strings and its position; now and then ``PAUSE``.

    Raises:
        Excessive: there are more than ``max_strings``, which JSON has between brackets and commas.
    """
    size, left = len(data), len(data) if max_strings is None else max_strings
    while position < size:
        end = min(position + WINDOW_BYTES, size)
        for match in _TOKEN.finditer(data, position, end):
            start = match.start()
            token = data[start]
            if token != _QUOTE:
                yield token, start
                continue
            left -= 1
            if left < 0:
                raise Excessive(Excess.VALUES)
            if match.end() == start + 1:  # it goes on beyond the window
                end = yield from _end_of_string(data, start + 1)
                break
        position = end
        yield PAUSE, position


def _end_of_string(data: bytes, position: int) -> Generator[tuple[int, int], None, int]:
    """Return where the string ends that ``position`` is in."""
    size = len(data)
    while position < size:
        match = _REST_OF_STRING.match(data, position, min(position + WINDOW_BYTES, size))
        position = size if match is None else match.end()
        yield PAUSE, position
        if data[position : position + 1] == b'"':
            return position + 1
        if data[position : position + 1] == b"\\":
            position += 2
    return size
