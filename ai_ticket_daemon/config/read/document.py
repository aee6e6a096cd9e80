"""The raw configuration: TOML values, and for each the place it came from."""

from __future__ import annotations

import re
import stat
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.config.read.errors import ConfigError, Problem
from ai_ticket_daemon.config.read.locate import locate

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.config.values.schema import KeyPath, Mistake

_MAX_FILE_BYTES = 1024 * 1024
_MAX_DEPTH = 32
_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written; see :class:`Problem`."""

    source: str
    line: int | None = None


@dataclass(slots=True)
class Document:
    """The configuration as TOML values, while it is put together from its sources.

    Args:
        default: the origin of what nobody wrote, such as a missing key.
        raw: the values by section and key.
        origins: where they were written; what is not listed came with what contains it.
    """

    default: Origin
    raw: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)

    def get(self, path: KeyPath) -> Any:
        """Return the value at ``path``, None if there is none."""
        value: Any = self.raw
        for key in path:
            match value, key:
                case dict(), str() if key in value:
                    value = value[key]
                case list(), int() if key < len(value):
                    value = value[key]
                case _:
                    return None
        return value

    def set(self, path: KeyPath, value: object, origin: Origin) -> None:
        """Put ``value`` at ``path``, making missing tables; an int may point behind the last item.

        Where the file has something else than a table on the way, nothing happens: that mistake
        is reported anyway.
        """
        holder: Any = self.raw
        for key in path[:-1]:
            match holder, key:
                case dict(), str():
                    holder = holder.setdefault(key, {})
                case list(), int() if key < len(holder):
                    holder = holder[key]
                case _:
                    return
        match holder, path[-1]:
            case dict(), str() as name:
                holder[name] = value
            case list(), int() as index if index <= len(holder):
                holder[index : index + 1] = [value]
            case _:
                return
        # What the file said about the insides of the old value is no longer true.
        for inner in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[inner]
        self.origins[path] = origin

    def origin(self, path: KeyPath) -> Origin:
        """Return where the value at ``path``, or else the closest thing around it, was written."""
        for length in range(len(path), 0, -1):
            found = self.origins.get(path[:length])
            if found is not None:
                return found
        return self.default

    def problem(self, mistake: Mistake) -> Problem:
        """Return the mistake with its place."""
        origin = self.origin(mistake.path)
        return Problem(origin.source, origin.line, dotted(mistake.path), mistake.message)


def read_document(path: Path) -> Document:
    """Read a conf file.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    text = _read_text(path)
    try:
        raw = tomllib.loads(text)
        lines = locate(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place["line"]) if place and place["line"] else text.count("\n") + 1
        message = _TOML_PLACE.sub("", str(error))
        if message == "Cannot overwrite a value":
            message = "this key is given already; remove one of the two"
        raise _refused(path, f"not valid TOML: {message}", line) from error
    except (ValueError, RecursionError) as error:
        raise _refused(path, "not valid TOML: a number is too long or the nesting too deep") from (
            error
        )
    if _nests_deeper(raw, _MAX_DEPTH):
        raise _refused(path, f"tables and arrays nest deeper than {_MAX_DEPTH}; no setting does")
    origins = {key_path: Origin(str(path), line) for key_path, line in lines.items()}
    return Document(Origin(str(path)), raw, origins)


def _nests_deeper(value: object, limit: int) -> bool:
    """Tell whether tables and arrays nest deeper than ``limit``; by dotted keys, they can for ever.

    Whatever reads the document later may then call itself once for each level.
    """
    level = [value]
    for _ in range(limit + 1):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def _read_text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise _refused(path, f"is {kind}; name the conf file itself")
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refused(path, f"the file cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise _refused(path, f"the file is larger than {_MAX_FILE_BYTES} bytes")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise _refused(path, "the file holds NUL bytes; it is damaged or not a text file", line)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(path, "the file is not UTF-8 text", line) from error
    if text.startswith("\ufeff"):
        raise _refused(path, "the file begins with a byte order mark; save it without", 1)
    return text


def _refused(path: Path, message: str, line: int | None = None) -> ConfigError:
    return ConfigError([Problem(str(path), line, "", message)])


def dotted(path: KeyPath) -> str:
    """Return a key path as operators write it: ``backends.server[1].url``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += "." if text else ""
            text += key if _BARE_KEY.fullmatch(key) else repr(key)
    return text
