"""Seats: which of the daemons that share a store file is alive.

Each daemon holds a lock on one small file beside the store, ``events.db-seat-0`` and so on; the
kernel takes the lock away when the process ends, however it ends. So whoever holds a seat knows
that its earlier holder is gone, and whoever can lock another seat knows that of its holder.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_SEATS = 64
"""How many daemons may share a store file."""


class NoSeatFree(Exception):
    """As many daemons share the store as may."""


@dataclass(slots=True)
class Seat:
    """A place at the store, held until :meth:`leave` or the end of the process."""

    number: int
    _path: Callable[[int], Path]
    _descriptor: int

    @classmethod
    def take(cls, store: Path) -> Seat:
        """Take the first free seat at the file ``store``.

        Raises:
            NoSeatFree: all :data:`MAX_SEATS` are taken.
            OSError: the seat's file cannot be made.
        """

        def path(number: int) -> Path:
            return store.with_name(f"{store.name}-seat-{number}")

        for number in range(MAX_SEATS):
            descriptor = _lock(path(number))
            if descriptor is not None:
                return cls(number, path, descriptor)
        raise NoSeatFree(f"all {MAX_SEATS} seats at {store} are taken")

    def is_free(self, number: int) -> bool:
        """Tell whether the holder of another seat is gone."""
        if number == self.number:
            return False
        descriptor = _lock(self._path(number))
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def leave(self) -> None:
        """Give the seat up."""
        os.close(self._descriptor)


def _lock(path: Path) -> int | None:
    """Return an open descriptor that holds the lock of ``path``; None if another one holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
