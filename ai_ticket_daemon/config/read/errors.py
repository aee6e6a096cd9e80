"""What is wrong with a configuration, all of it at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration, and where it was made.

    Args:
        source: the conf file, ``environment variable NAME`` or ``command line``.
        line: the line of the file, counted from 1; None if the source has no lines.
        path: the dotted key, such as ``backends.server[1].url``; empty for the file as a whole.
        message: what is wrong and what is allowed; never a secret.
    """

    source: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(Exception):
    """The conf file, the environment or the command line is wrong.

    Args:
        problems: every mistake found, one at least; ``str()`` gives one per line.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
