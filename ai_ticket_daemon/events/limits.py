"""What the fields of an event may hold: the one place where their limits and defaults are written.

A request is held against them when it comes in (``events/parse.py``) and once more before it leaves
for a server (``backends/validate.py``); the conf file keeps within them, and the OpenAPI
description and the table in ``docs/http-api.md`` show them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Number = TypeVar("Number", int, float)


class Range(msgspec.Struct, Generic[Number], frozen=True):
    """The numbers that a field takes.

    Args:
        least: the smallest number.
        most: the largest number.
        default: what counts where a client does not say.
        whole: whether a number with a fraction is refused.
        above_least: whether ``least`` itself is refused.
    """

    least: Number
    most: Number
    default: Number
    whole: bool = False
    above_least: bool = False

    def admits(self, value: object) -> bool:
        """Tell whether ``value`` is such a number; a boolean is none, to anybody but Python."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        # A NaN fails each comparison; a whole number too big for a float may be compared, too.
        return self.least <= value <= self.most and not (self.above_least and value == self.least)

    def within(self, *, most: Number, default: Number) -> Range[Number]:
        """Return the range drawn closer, as the conf file asks for it."""
        return Range(self.least, most, default, self.whole, self.above_least)

    def __str__(self) -> str:
        start = f"above {self.least:g}" if self.above_least else f"from {_plain(self.least)}"
        return f"a {'whole ' if self.whole else ''}number {start} to {_plain(self.most)}"

    def schema(self) -> dict[str, Any]:
        """Return the range as JSON Schema has it, without the default."""
        return {
            "type": "integer" if self.whole else "number",
            "exclusiveMinimum" if self.above_least else "minimum": self.least,
            "maximum": self.most,
        }


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


MAX_TOKENS = Range(1, 1_000_000, 256, whole=True)
"""The conf file draws it closer: ``events.max_max_tokens`` and ``events.default_max_tokens``."""
TEMPERATURE = Range(0.0, 5.0, 0.7)
TOP_P = Range(0.0, 1.0, 1.0, above_least=True)
SEED_OF_BACKEND = -1
"""The seed that leaves the choice to the backend."""
SEED = Range(SEED_OF_BACKEND, 2**31 - 1, SEED_OF_BACKEND, whole=True)
PRIORITY = Range(0, 9, 5, whole=True)
"""0 comes first."""
TIMEOUT_SECONDS = Range(0.0, 604_800.0, 300.0, above_least=True)
"""A week; ``events.default_timeout_seconds`` says otherwise where a client does not say."""

MAX_STOP_STRINGS = 30
"""KoboldCPP takes 32, and adds the markers of two roles itself."""
MAX_STOP_CHARACTERS = 16_384
"""All stop strings of one event together."""
MAX_METADATA_BYTES = 4096

RANGES: Mapping[str, Range[int] | Range[float]] = MappingProxyType(
    {
        "max_tokens": MAX_TOKENS,
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
        "seed": SEED,
        "priority": PRIORITY,
        "timeout_seconds": TIMEOUT_SECONDS,
    }
)
"""The fields of a request that are numbers."""

FIELDS = ("content", *RANGES, "stop", "metadata", "stream", "reasoning", "reasoning_effort")
"""All fields of a request; others are ignored."""


def takes_stop(strings: object) -> bool:
    """Tell whether ``strings`` are stop strings that every server can be given."""
    return (
        isinstance(strings, list | tuple)
        and len(strings) <= MAX_STOP_STRINGS
        and all(isinstance(text, str) for text in strings)
        and sum(map(len, strings)) <= MAX_STOP_CHARACTERS
        and all(text and _is_clean(text) for text in strings)
    )


def _is_clean(text: str) -> bool:
    """Tell whether a backend can be given ``text``: no NUL, no half surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
