r"""Text of others on somebody's terminal: what would act there, or deceive, is shown instead.

Tickets, completions, what servers answer and what stands in files may hold escape sequences, which
recolour, rename or type into a terminal, and marks that turn the direction of the text around, so
that it reads as something else. They are written as Python and JSON write them: ``\x1b``.
"""

from __future__ import annotations

import json
import re
from typing import Any

_ACTING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed; C1, too
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of the text
    "\u2028\u2029\ufeff"  # lines and marks nobody sees
    "\ud800-\udfff"  # halves of characters
    "\U000e0000-\U000e007f"  # tags nobody sees
)
_PATTERN = re.compile(f"[{_ACTING}]")


def visible(text: str) -> str:
    """Return ``text`` as it can be shown on a terminal; its lines and tabs stay."""
    return _PATTERN.sub(_escape, text.replace("\r\n", "\n"))


def visible_in(value: Any) -> Any:
    """Return a value as JSON has them, with all texts in it made visible."""
    match value:
        case str():
            return visible(value)
        case dict():
            return {visible_in(key): visible_in(found) for key, found in value.items()}
        case list() | tuple():
            return [visible_in(found) for found in value]
        case _:
            return value


def visible_json(value: Any, *, indent: int | None = None) -> str:
    """Return ``value`` as JSON: readable, and with nothing in it that acts on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _PATTERN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
