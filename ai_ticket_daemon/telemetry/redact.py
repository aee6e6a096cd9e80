"""Taking out of a text what looks like a secret or like a person, before it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_MARK = "[redacted {}]"
_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credential|client[_-]?secret|kennw(?:or|ör)t(?:er)?|pass?wor[dt]|geheimnis|zugangsdaten"
    r"|mot[ _-]de[ _-]passe|contrase(?:n|ñ)a|clave|wachtwoord|parola|has(?:ł|l)o|senha)s?"
)
_SHORT_WORDS = r"(?<![A-Za-z])(?:pw|pin|mdp|pass|kw)(?![A-Za-z])"
_SECRET_KEY = re.compile(rf"(?i){_WORDS}|{_SHORT_WORDS}|authori[sz]ation|cookie")

_GAP = r"\s{0,3}(?:=>|[:=]|\b(?:is|are|ist|sind|lautet|est|es)\b:?)\s{0,3}"
_VALUE = (
    r"(?:\"(?:[^\"\\]|\\.){1,4096}(?:\"|$)|'(?:[^'\\]|\\.){1,4096}(?:'|$)"
    r"|`[^`]{1,4096}(?:`|$)|[\u201c\u201e\u00ab\u2018\u201a][^\u201c\u201d\u00bb\u2019]{1,4096}[\u201c\u201d\u00bb\u2019]"
    r"|[\"']?[^\s\"',;]{1,4096})"
)
"""The whole of what stands in quotes: a pass phrase has blanks."""

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
        re.compile(rf"(?i)(?:{_WORDS}|{_SHORT_WORDS})[\"']?{_GAP}{_VALUE}", re.DOTALL),
    ),
    ("credentials", re.compile(r"(?<=://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)")),
    ("address", re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}")),
    ("number", re.compile(r"(?<![\w.])\+?\d(?:[ -]?\d){8,40}(?![\w.])")),
    ("token", re.compile(r"(?<![\w+/-])(?=[A-Za-z+/_-]{0,512}\d)[A-Za-z0-9+/_-]{32,4096}={0,2}")),
)
"""What it is called, and how it looks; the first ones first."""


MAX_DEPTH = 64
_WINDOW = 16_384
_OVERLAP = 12_288
"""Longer than the longest match: none is cut off at the end of its window."""


def redact_text(text: str) -> str:
    """Return ``text`` without what looks like a key, a password, an address or a long number."""
    for name, pattern in _PATTERNS:
        text = _replace(pattern, _MARK.format(name), text)
    return text


def _replace(pattern: re.Pattern[str], mark: str, text: str) -> str:
    """Return ``text`` with all matches replaced: window by window, not in one long call.

    It is used in a thread, and while a pattern is at work the event loop stands still.
    """
    if len(text) <= _WINDOW:
        return pattern.sub(mark, text)
    pieces, kept, position = [], 0, 0
    while position < len(text):
        last = position + _WINDOW
        match = pattern.search(text, position, last + _OVERLAP)
        if match is None or match.start() >= last:
            position = last
        else:
            pieces += [text[kept : match.start()], mark]
            kept = position = match.end()
    return "".join([*pieces, text[kept:]])


def redact(value: object, depth: int = 0) -> object:
    """Return a JSON value with every text in it redacted, and whole what has a secret's name.

    What nests deeper than ``MAX_DEPTH`` is left out.
    """
    if depth > MAX_DEPTH:
        return _MARK.format("depth")
    match value:
        case str():
            return redact_text(value)
        case Mapping():
            return {
                redact_text(str(key)): _MARK.format("secret")
                if _is_secret(str(key))
                else redact(item, depth + 1)
                for key, item in value.items()
            }
        case Sequence():
            return [redact(item, depth + 1) for item in value]
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
