"""What differs between two configurations, and what of it a reload can apply."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.config.values.schema import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ai_ticket_daemon.config.backend_server import ServerConfig
    from ai_ticket_daemon.config.tree import Config


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Args:
        path: the key; a server is named by its name, as in ``backends.server[standby].url``.
        old: the old value as the file would have it; empty if there was none; secrets masked.
        new: the new value, likewise.
        live: True if a reload applies it, False if it needs a restart.
    """

    path: str
    old: str
    new: str
    live: bool

    def __str__(self) -> str:
        note = "" if self.live else " (needs a restart)"
        return f"{self.path}: {self.old or 'none'} -> {self.new or 'none'}{note}"


def diff(old: Config, new: Config) -> list[Change]:
    """Return every difference, in the order of the sections."""
    changes: list[Change] = []
    for section in settings_of(type(old)):
        changes += _differences(section, getattr(old, section), getattr(new, section))
    return changes


def _differences(prefix: str, old: Any, new: Any) -> Iterator[Change]:
    for key, (field, setting) in settings_of(type(old)).items():
        before, after = getattr(old, field.name), getattr(new, field.name)
        path = f"{prefix}.{key}"
        if before == after:
            continue
        if path == "backends.server":
            yield from _server_differences(before, after)
        else:
            yield Change(path, as_toml(before), as_toml(after), setting.live)


def _server_differences(
    old: tuple[ServerConfig, ...], new: tuple[ServerConfig, ...]
) -> Iterator[Change]:
    before = {server.name: server for server in old}
    after = {server.name: server for server in new}
    for name in before | after:
        path = f"backends.server[{name}]"
        match before.get(name), after.get(name):
            case None, added if added is not None:
                yield Change(path, "", as_toml(added.url), live=True)
            case removed, None if removed is not None:
                yield Change(path, as_toml(removed.url), "", live=True)
            case both:
                yield from _differences(path, *both)
    if list(before) != list(after) and before.keys() == after.keys():
        yield Change("backends.server", as_toml(list(before)), as_toml(list(after)), live=True)


def as_toml(value: object) -> str:
    """Return a setting's value as the file would have it; empty for none, ``***`` for a secret."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return f"{value:.15g}"
        case tuple() | list():
            return f"[{', '.join(map(as_toml, value))}]"
        case _:
            return json.dumps(str(value), ensure_ascii=False)
