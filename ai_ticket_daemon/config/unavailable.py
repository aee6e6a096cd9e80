"""The keys this version knows but cannot honour yet.

The names are fixed already, so that a conf file lives through upgrades; setting one is refused
rather than accepted and ignored. A version that brings a feature removes its line.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.schema import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNAVAILABLE: Mapping[tuple[str, str], tuple[str, object]] = MappingProxyType(
    {
        # section, key: what is not available, the one value that may stand in the file
        ("control", "socket"): ("a control socket", ""),
    }
)


def unavailable_keys(raw: Mapping[str, object]) -> Iterator[Mistake]:
    """Yield a mistake for every key of the file, as TOML gave it, that this version refuses."""
    for (section, key), (feature, allowed) in UNAVAILABLE.items():
        keys = raw.get(section)
        if isinstance(keys, dict) and keys.get(key, allowed) != allowed:
            yield Mistake(
                (section, key), f"{feature} is not available in this version; remove the key"
            )
