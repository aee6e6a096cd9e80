"""SQLite's log (the ``-wal`` file), which is what a commit has to find its way to the disk in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class LogFile:
    """The log of the database file ``path``, to be synced; opened when first needed.

    Opening and closing it does not touch SQLite's locks: none is on this file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}-wal")
        self._descriptor: int | None = None

    def sync(self) -> None:
        """Return when all that was written to the log would survive a power cut.

        Raises:
            OSError: the disk says that it would not.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        os.fdatasync(self._descriptor)

    def is_in_place(self) -> bool:
        """Tell whether the log that was synced is still the one at its path."""
        try:
            return self._descriptor is None or os.path.samestat(
                self._path.stat(), os.fstat(self._descriptor)
            )
        except OSError:
            return False

    def close(self) -> None:
        """Close it; the next sync opens it anew."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
