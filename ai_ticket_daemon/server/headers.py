"""What the headers of a request ask for, read as their standards say, by pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def values_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return the values of all fields of this name (in lower case), in their order."""
    return [value.decode("latin-1").strip() for field, value in headers if field == name]


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the values of all fields of this name, joined as a list; "" if there is none."""
    return ", ".join(values_of(headers, name))
