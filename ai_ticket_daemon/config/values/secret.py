"""A string that does not show itself."""

from __future__ import annotations

import hmac

MASK = "***"


class Secret:
    """A password or token: printing, formatting or logging it shows ``***``.

    Args:
        value: the text to hide; :meth:`reveal` gives it back where it is needed.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the hidden text; call it only where the text goes out to its owner."""
        return self._value

    def __eq__(self, other: object) -> bool:
        # Constant time, so that the duration of a comparison tells nothing about the text.
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled; reveal() it where it is used")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self
