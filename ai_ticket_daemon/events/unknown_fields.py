"""Fields of a request that are not known: ignored, but said where one is likely to be a mistake."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.limits import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_WARNINGS = 10
_LIKENESS = 0.75
_LONGEST_NAME = 40
"""Longer names are no slips of the finger; comparing them would cost time."""


def likely_mistakes(body: object) -> tuple[str, ...]:
    """Return a sentence for each field of ``body`` that is not known and looks like one that is."""
    if not isinstance(body, dict):
        return ()
    unknown = [name for name in body if name not in FIELDS and _could_be_one(name)]
    found = ((name, _nearest(name, body)) for name in unknown[:MOST_WARNINGS])
    return tuple(
        f'"{name}" is not known and was ignored; did you mean "{near}"?'
        for name, near in found
        if near is not None
    )


def _could_be_one(name: object) -> bool:
    return isinstance(name, str) and 2 < len(name) <= _LONGEST_NAME and name.isprintable()


def _nearest(name: str, body: Mapping[str, object]) -> str | None:
    missing = [known for known in FIELDS if known not in body]
    near = get_close_matches(name.lower().replace("-", "_"), missing, n=1, cutoff=_LIKENESS)
    return next(iter(near), None)
