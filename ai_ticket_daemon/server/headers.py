"""What the headers of a request ask for, read as their standards say, by pure functions.

``Prefer`` is RFC 7240, ``Accept`` RFC 9110 section 12.5.1, ``Idempotency-Key`` the draft
draft-ietf-httpapi-idempotency-key-header, whose value is taken as it comes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
MAX_KEY_CHARACTERS = 255
MAX_WAIT_SECONDS = 300.0
"""The longest wait of one look at an event; a client that wants more looks again."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'{_WORD}|"(?:[^"\\]|\\.)*"'
_PREFERENCE = re.compile(
    rf"\s*(?P<name>{_WORD})\s*(?:=\s*(?P<value>{_VALUE})?\s*)?(?P<rest>.*)", re.DOTALL
)
_SECONDS = re.compile(r"[0-9]{1,9}")
_WAIT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,30})?")
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client would like: not to wait at all, or ``wait_seconds`` at most."""

    respond_async: bool = False
    wait_seconds: int | None = None

    @property
    def patience_seconds(self) -> int | None:
        """How long the client waits before a 202 will do; None if it waits for the outcome."""
        return 0 if self.wait_seconds is None and self.respond_async else self.wait_seconds


NO_PREFERENCES = Preferences()


def values_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return the values of all fields of this name (in lower case), in their order."""
    return [value.decode("latin-1").strip() for field, value in headers if field == name]


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the values of all fields of this name, joined as a list; "" if there is none."""
    return ", ".join(values_of(headers, name))


def preferences(value: str) -> Preferences:
    """Return what a ``Prefer`` header asks for; "" is no header.

    Preferences that are not known, or make no sense, are ignored, as the standard asks; of one
    given twice the first counts.
    """
    if not value:
        return NO_PREFERENCES
    wishes: dict[str, str] = {}
    for item in _split(value, ","):
        # Parameters, behind a semicolon, are defined for neither preference.
        match = _PREFERENCE.fullmatch(next(_split(item, ";")))
        if match is not None and not match["rest"]:
            wishes.setdefault(match["name"].lower(), _unquoted(match["value"] or ""))
    wait = wishes.get("wait", "")
    return Preferences(
        # An empty value is the same as none.
        respond_async=wishes.get("respond-async") == "",
        wait_seconds=int(wait) if _SECONDS.fullmatch(wait) else None,
    )


def prefers_ndjson(value: str) -> bool:
    """Tell whether an ``Accept`` header likes NDJSON better than JSON; it has to name it."""
    quality = dict.fromkeys((NDJSON_TYPE, JSON_TYPE), 0.0)
    for item in _split(value, ","):
        media_type, *parameters = (part.strip().lower() for part in _split(item, ";"))
        if media_type in quality:
            quality[media_type] = max(quality[media_type], _quality_of(parameters))
    return 0.0 < quality[NDJSON_TYPE] >= quality[JSON_TYPE]


def idempotency_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the client's own name for its request; None if it has none.

    Raises:
        RequestRefused: ``invalid_parameter``: there are several, or it is not one to keep.
    """
    keys = values_of(headers, b"idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise RequestRefused(
            ErrorCode.INVALID_PARAMETER,
            f"The header Idempotency-Key has to be one text of 1 to {MAX_KEY_CHARACTERS} printable "
            "ASCII characters.",
            details={"field": "Idempotency-Key", "max_characters": MAX_KEY_CHARACTERS},
        )
    return keys[0]


def wait_seconds(values: Iterable[str]) -> float:
    """Return how long a look at an event may wait for its end, by its ``wait`` parameters.

    Raises:
        RequestRefused: ``invalid_parameter``: it is no number, too long, or given twice.
    """
    given = list(values)
    if not given:
        return 0.0
    if len(given) > 1 or not _WAIT.fullmatch(given[0]) or float(given[0]) > MAX_WAIT_SECONDS:
        raise RequestRefused(
            ErrorCode.INVALID_PARAMETER,
            f'"wait" has to be one number of seconds from 0 to {MAX_WAIT_SECONDS:g}; '
            "to wait longer, ask again.",
            details={"field": "wait", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
        )
    return float(given[0])


def _split(text: str, separator: str) -> Iterator[str]:
    """Yield the parts of ``text`` between separators that do not stand in quotes."""
    if '"' not in text:
        yield from text.split(separator)
        return
    start, quoted, escaped = 0, False, False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _quality_of(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _QUALITY.fullmatch(value.strip()) else 0.0
    return 1.0
