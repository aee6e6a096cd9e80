"""The name of the group that owns a file, for a sentence that tells somebody to join it."""

from __future__ import annotations

import grp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = "that owns it"


def group_of(path: Path) -> str:
    """Return the name of the group that owns ``path``, or its number if it has no name."""
    try:
        number = path.stat().st_gid
    except OSError:
        return UNKNOWN
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
