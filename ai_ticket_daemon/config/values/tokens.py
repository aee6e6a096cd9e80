"""The tokens file: who may do what, one token per line.

    # comment
    name:token
    name:sha256:64 hexadecimal digits
    name:token submit,read,operate

Scopes stand behind a blank; a line without them has ``submit,read``. Among them may stand
``priority:N``, the best priority that events of the token may have, and ``priority``, which is any;
without it, that is the one that events have by default. A name may stand on several
lines, so that a token can be replaced while the old one still works.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.rules import readable_file
from ai_ticket_daemon.config.values.schema import Invalid, Mistake, Rule, wrong
from ai_ticket_daemon.events.limits import PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIN_TOKEN_CHARACTERS = 16
MAX_TOKENS = 1000
"""Each request is compared with all of them; see :meth:`Tokens.find`."""

_MAX_FILE_BYTES = 1024 * 1024
_MAX_MISTAKES = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What RFC 6750 section 2.1 lets a bearer token be made of.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_HASHED = "sha256:"


class Scope(StrEnum):
    """What a token allows."""

    SUBMIT = "submit"
    """Hand over events, wait for them, and cancel them."""
    READ = "read"
    """Look at events handed over with a token of the same name."""
    OPERATE = "operate"
    """Look at and cancel everybody's events."""


DEFAULT_SCOPES = frozenset({Scope.SUBMIT, Scope.READ})

_PRIORITY = re.compile(rf"priority(?::([{PRIORITY.least}-{PRIORITY.most}]))?")


@dataclass(frozen=True, slots=True)
class Token:
    """One line of the file. ``digest`` is the SHA-256 of the token itself, which is not kept.

    ``best_priority`` is the lowest number its events may have as theirs.
    """

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    best_priority: int = PRIORITY.default


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens of a file. ``is_exposed``: everybody on this host can read it."""

    path: Path
    tokens: tuple[Token, ...]
    is_exposed: bool = False

    def find(self, presented: str) -> Token | None:
        """Return the token that ``presented`` is; None if it is none of them.

        Takes the same time whichever it is, and whether it is one.
        """
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).digest()
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def __str__(self) -> str:
        names = len({token.name for token in self.tokens})
        return f"{self.path} ({len(self.tokens)} tokens, {names} names)"


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Return the tokens that ``text`` holds.

    Raises:
        Invalid: with a mistake for each line that cannot be used; none quotes its line.
    """
    tokens: list[Token] = []
    mistakes: list[Mistake] = []
    lines_by_digest: dict[bytes, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            token = _parse_line(line)
        except Invalid as error:
            mistakes += _in_line(number, error)
            continue
        first = lines_by_digest.setdefault(token.digest, number)
        if first != number:
            mistakes.append(
                Mistake((), f"line {number} of the file: is the same token as in line {first}")
            )
        tokens.append(token)
    if len(mistakes) > _MAX_MISTAKES:
        left = len(mistakes) - _MAX_MISTAKES
        mistakes[_MAX_MISTAKES:] = [Mistake((), f"{left} more lines of the file are wrong")]
    if not mistakes and not tokens:
        mistakes.append(
            Mistake((), "the file holds no token; add a line such as `ticket-bot:TOKEN`")
        )
    if len(tokens) > MAX_TOKENS:
        mistakes.append(
            Mistake((), f"the file holds {len(tokens)} tokens, more than {MAX_TOKENS} allowed")
        )
    if mistakes:
        raise Invalid(mistakes)
    return tuple(tokens)


def _parse_line(line: str) -> Token:
    name, colon, rest = line.strip().partition(":")
    if not colon:
        raise wrong("must be `name:token` or `name:sha256:DIGEST`, then scopes if any")
    if not _NAME.fullmatch(name):
        raise wrong(
            "the name must be 1 to 64 letters, digits, dots, dashes and underscores, "
            "the first one a letter or digit"
        )
    secret, *scopes = rest.split(maxsplit=1)[:2] or [""]
    digest = _read_digest(secret)
    return Token(name, digest, *_read_scopes(scopes[0])) if scopes else Token(name, digest)


def _read_digest(secret: str) -> bytes:
    if secret.startswith(_HASHED):
        digest = secret.removeprefix(_HASHED)
        if not _HEX_DIGEST.fullmatch(digest):
            raise wrong("behind `sha256:` there must be 64 hexadecimal digits")
        return bytes.fromhex(digest)
    if not _TOKEN.fullmatch(secret):
        raise wrong("the token must consist of letters, digits and - . _ ~ + /, then = if any")
    if len(secret) < MIN_TOKEN_CHARACTERS:
        raise wrong(
            f"the token must have at least {MIN_TOKEN_CHARACTERS} characters; "
            "make one with `openssl rand -hex 32`"
        )
    return hashlib.sha256(secret.encode()).digest()


def _read_scopes(text: str) -> tuple[frozenset[Scope], int]:
    """Return the scopes and the best priority; one that is not named is what it is by default."""
    known = {scope.value: scope for scope in Scope}
    scopes: set[Scope] = set()
    best_priority = PRIORITY.default
    for word in (part.strip() for part in text.split(",")):
        if (priority := _PRIORITY.fullmatch(word)) is not None:
            best_priority = int(priority[1] or PRIORITY.least)
        elif word in known:
            scopes.add(known[word])
        else:
            # Not quoted: it might be a token with a blank in it.
            raise wrong(
                f"the scopes must be some of {','.join(known)},priority,"
                f"priority:{PRIORITY.least} to priority:{PRIORITY.most}, with commas between"
            )
    return frozenset(scopes) or DEFAULT_SCOPES, best_priority


def _in_line(number: int, error: Invalid) -> Iterator[Mistake]:
    for mistake in error.mistakes:
        yield Mistake((), f"line {number} of the file: {mistake.message}")


def _read_tokens_file(value: object) -> Tokens:
    path = readable_file.read(value)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
            mode = path.stat().st_mode
    except OSError as error:
        raise wrong(f"the file cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise wrong(f"the file must not be longer than {_MAX_FILE_BYTES} bytes")
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        # Without the cause: it holds the bytes of the file.
        raise wrong(f"line {line} of the file: holds something else than ASCII") from None
    return Tokens(path, parse_tokens(text), is_exposed=bool(mode & 0o004))


tokens_file: Rule[Tokens] = Rule("the absolute path of a readable file", _read_tokens_file)
