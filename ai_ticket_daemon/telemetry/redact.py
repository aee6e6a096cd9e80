"""Taking out of a text what looks like a secret or like a person, before it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_MARK = "[redacted {}]"
_WORDS = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|credential)s?"
_SECRET_KEY = re.compile(rf"(?i){_WORDS}|authori[sz]ation|cookie")

_PLAIN_KEYS = frozenset({"max_tokens"})

_ID_KEY = re.compile(r"(?i)(?:ai_ticket_)?(?:event|trace|span|message)_id|__realtime_timestamp")
_ID = re.compile(r"[0-9a-f-]{16,36}")

# Every repetition has a bound: a text of a megabyte that almost matches must not take long.
_PATTERNS: Sequence[tuple[str, re.Pattern[str]]] = (
    (
        "key",
        re.compile(
            r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[^-]{0,9999}(?:-----END [A-Z ]{0,20}KEY-----)?"
        ),
    ),
    ("token", re.compile(r"\beyJ[\w-]{8,4096}\.[\w-]{1,4096}(?:\.[\w-]{1,4096})?")),
    ("token", re.compile(r"(?i)\b(?:bearer|basic)\s{1,3}[\w.~+/=-]{8,4096}")),
    (
        "token",
        re.compile(
            r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[abps]|AKIA|ASIA)[-_]?\w[\w-]{10,200}"
        ),
    ),
    (
        "secret",
        re.compile(
            rf"(?i){_WORDS}[\"']?\s{{0,3}}(?:[:=]|\bis\b)\s{{0,3}}[\"']?[^\s\"',;]{{1,4096}}"
        ),
    ),
    ("credentials", re.compile(r"(?<=://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)")),
    ("address", re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}")),
    ("number", re.compile(r"(?<![\w.])\+?\d(?:[ -]?\d){8,40}(?![\w.])")),
    ("token", re.compile(r"(?<![\w+/-])(?=[A-Za-z+/_-]{0,512}\d)[A-Za-z0-9+/_-]{32,4096}={0,2}")),
)
"""What it is called, and how it looks; the first ones first."""


def redact_text(text: str) -> str:
    """Return ``text`` without what looks like a key, a password, an address or a long number."""
    for name, pattern in _PATTERNS:
        text = pattern.sub(_MARK.format(name), text)
    return text


def redact(value: object) -> object:
    """Return a JSON value with every text in it redacted, and whole what has a secret's name."""
    match value:
        case str():
            return redact_text(value)
        case Mapping():
            return {
                key: _MARK.format("secret") if _is_secret(str(key)) else redact(item)
                for key, item in value.items()
            }
        case Sequence():
            return [redact(item) for item in value]
        case _:
            return value


def redact_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a log line redacted, but for the ids by which lines are found: they name nobody."""
    ids = {
        key: value
        for key, value in line.items()
        if _ID_KEY.fullmatch(key) and isinstance(value, str) and _ID.fullmatch(value)
    }
    redacted = redact(line)
    assert isinstance(redacted, dict)  # noqa: S101 - of a mapping comes one
    return redacted | ids


def _is_secret(key: str) -> bool:
    return key not in _PLAIN_KEYS and _SECRET_KEY.search(key) is not None
