"""Text and numbers that servers say of themselves, made fit to be kept, logged and shown.

Everything that does not come from the conf file or from a client comes from a server, and passes
here where it enters: names, sentences, figures. Completions keep what a model wrote, except for
what no text may hold.
"""

from __future__ import annotations

import math

LONGEST_NAME = 200
"""Characters of a name, as many as the conf file's ``model`` may have."""
LONGEST_SENTENCE = 240
LARGEST_NUMBER = 2**53 - 1
"""Beyond it, a number of JSON is not the same to every reader."""

_UNFIT = "\N{REPLACEMENT CHARACTER}"
_CUT = "\N{HORIZONTAL ELLIPSIS}"


def clean_name(text: str) -> str:
    """Return a name in one line: no control characters, no direction marks, no half characters.

    A name that is too long is cut, and ends with an ellipsis.
    """
    cut = text[: LONGEST_NAME - 1] + _CUT if len(text) > LONGEST_NAME else text
    if cut.isprintable():
        return cut
    return "".join(character if character.isprintable() else _UNFIT for character in cut)


def clean_sentence(text: str) -> str:
    """Return what a server says of an error, in one line, cleaned as names are and cut."""
    line = " ".join(text[: 4 * LONGEST_SENTENCE].split())
    line = "".join(character if character.isprintable() else _UNFIT for character in line)
    return line[: LONGEST_SENTENCE - 1] + _CUT if len(line) > LONGEST_SENTENCE else line


def without_halves(text: str) -> str:
    """Replace halves of characters, which JSON can say and UTF-8 cannot; pairs become whole."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def whole_number(value: object) -> int | None:
    """Return a count that a server tells; None if it is no whole number from 0 that can be kept.

    Some servers write whole numbers with a decimal point.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= LARGEST_NUMBER or value != math.floor(value):  # false for NaN
        return None
    return int(value)


class CharacterJoiner:
    """Joins characters whose halves come in two pieces of a text."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text up to its last whole character."""
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return without_halves(text)

    def finish(self) -> str:
        """Return what is left, now that nothing follows."""
        half, self._half = self._half, ""
        return without_halves(half)
