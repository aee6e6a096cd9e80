"""Seats: which of the daemons that share a store file is alive.

Each daemon holds a lock on one small file beside the store, ``events.db-seat-0`` and so on; the
kernel takes the lock away when the process ends, however it ends. So whoever holds a seat knows
that its earlier holder is gone, and whoever can lock another seat knows that of its holder.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_SEATS = 64
"""How many daemons may share a store file."""


class NoSeatFree(Exception):
    """As many daemons share the store as may."""


class SeatTaken(Exception):
    """A daemon has the store open."""


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
        path = partial(_path_of, store)
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


@contextmanager
def all_seats(store: Path) -> Iterator[None]:
    """Take every seat at the file ``store``: no daemon has it open, and none can open it meanwhile.

    Raises:
        SeatTaken: a daemon has it open.
        OSError: a seat's file cannot be made.
    """
    made: list[Path] = []
    with ExitStack() as taken:
        try:
            for path in (_path_of(store, number) for number in range(MAX_SEATS)):
                if not path.exists():
                    made.append(path)
                descriptor = _lock(path)
                if descriptor is None:
                    raise SeatTaken(f"a daemon has {store} open")
                taken.callback(os.close, descriptor)
                if path in made:  # Should this process be killed, the daemon can still sit there.
                    _give_to_owner_of(store.parent, descriptor)
            yield
        finally:
            # Before the locks go, so that nobody takes a seat whose file is about to be another's.
            for path in made:
                path.unlink(missing_ok=True)


def _give_to_owner_of(folder: Path, descriptor: int) -> None:
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _path_of(store: Path, number: int) -> Path:
    return store.with_name(f"{store.name}-seat-{number}")


def _lock(path: Path) -> int | None:
    """Return an open descriptor that holds the lock of ``path``; None if another one holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # The file was removed meanwhile: a lock on it excludes nobody.


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
