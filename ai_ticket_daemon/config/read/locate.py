"""The line of every key in a TOML text, which tomllib does not tell.

The text is known to be valid TOML (tomllib has read it), so nothing is checked here: the
scanner only walks over keys and values and notes where they begin. Table headers, dotted and
quoted keys, arrays of tables, inline tables and the items of arrays are noted; strings and comments
are stepped over whole, whatever they contain.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_ticket_daemon.config.values.schema import KeyPath

# The order matters: three quotes are tried before one. Up to two quotes may stand directly
# before the three that close a multi-line string; they belong to the string.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")  # numbers, booleans, dates: may hold a space, none of these
_BLANKS = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")


def locate(text: str) -> Mapping[KeyPath, int]:
    """Return the line, counted from 1, of every table, key and array item in valid TOML.

    A table that only exists because of its sub-tables has the line that first mentions it.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.lines


class _Scanner:
    """One walk over one text; ``_position`` is the next character to look at."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._array_lengths: dict[KeyPath, int] = {}
        self.lines: dict[KeyPath, int] = {}

    def document(self) -> None:
        """Walk over the whole text."""
        current: KeyPath = ()
        self._skip(_GAP)
        while self._position < len(self._text):
            if self._peek() == "[":
                current = self._header()
            else:
                self._key_and_value(current)
            self._skip(_GAP)

    def _header(self) -> KeyPath:
        start = self._position
        is_array = self._text.startswith("[[", start)
        self._position += 2 if is_array else 1
        keys = self._dotted_key()
        self._position += 2 if is_array else 1
        path: KeyPath = ()
        for depth, key in enumerate(keys, start=1):
            path = (*path, key)
            self._note(path, start)
            if is_array and depth == len(keys):
                self._array_lengths[path] = self._array_lengths.get(path, 0) + 1
            # A name that stands for an array of tables means its latest table.
            if path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
                self._note(path, start)
        return path

    def _key_and_value(self, table: KeyPath) -> None:
        start = self._position
        path = table
        for key in self._dotted_key():
            path = (*path, key)
            self._note(path, start)
        self._position += 1  # the equals sign
        self._skip(_BLANKS)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        match self._peek():
            case '"' | "'":
                self._take(_STRING)
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                self._take(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._position += 1
        self._skip(_GAP)
        index = 0
        while self._peek() != "]":
            self._note((*path, index), self._position)
            self._value((*path, index))
            index += 1
            self._skip_separator()
        self._position += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._position += 1
        self._skip(_GAP)
        while self._peek() != "}":
            self._key_and_value(path)
            self._skip_separator()
        self._position += 1

    def _skip_separator(self) -> None:
        self._skip(_GAP)
        if self._peek() == ",":
            self._position += 1
            self._skip(_GAP)

    def _dotted_key(self) -> tuple[str, ...]:
        keys = [self._simple_key()]
        while self._peek() == ".":
            self._position += 1
            keys.append(self._simple_key())
        return tuple(keys)

    def _simple_key(self) -> str:
        self._skip(_BLANKS)
        if self._peek() in "\"'":
            # tomllib knows the escapes; the name of the key around it does not matter.
            key = str(tomllib.loads(f"key = {self._take(_STRING)}")["key"])
        else:
            key = self._take(_BARE_KEY)
        self._skip(_BLANKS)
        return key

    def _note(self, path: KeyPath, position: int) -> None:
        self.lines.setdefault(path, bisect_right(self._line_starts, position))

    def _peek(self) -> str:
        return self._text[self._position]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._position)
        if match is not None:
            self._position = match.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._position)
        if match is None:
            raise AssertionError("the scanner reads only what tomllib has accepted")
        self._position = match.end()
        return match.group()
