"""Instance locks: which of the daemons that share a store file is alive.

Each daemon holds a lock on one small file beside the store, ``events.db-seat-0`` and so on; its
number is the instance number of the daemon. The kernel releases the lock when the process ends,
however it ends. A daemon that gets a lock knows that the earlier holder of it is gone.
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

MAX_INSTANCES = 64
"""How many daemons may share a store file."""


class TooManyInstances(Exception):
    """As many daemons share the store as may."""


class InstanceLockTaken(Exception):
    """A daemon has the store open."""


@dataclass(slots=True)
class InstanceLock:
    """The lock of one daemon, held until :meth:`release` or the end of the process."""

    number: int
    _path: Callable[[int], Path]
    _descriptor: int

    @classmethod
    def take(cls, store: Path) -> InstanceLock:
        """Take the first free lock of the file ``store``.

        Raises:
            TooManyInstances: all :data:`MAX_INSTANCES` are taken.
            OSError: the lock's file cannot be made.
        """
        path = partial(_path_of, store)
        for number in range(MAX_INSTANCES):
            descriptor = _lock(path(number))
            if descriptor is not None:
                return cls(number, path, descriptor)
        raise TooManyInstances(f"all {MAX_INSTANCES} instance locks of {store} are taken")

    def is_free(self, number: int) -> bool:
        """Tell whether the holder of another lock is gone."""
        if number == self.number:
            return False
        descriptor = _lock(self._path(number))
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


@contextmanager
def all_instance_locks(store: Path) -> Iterator[None]:
    """Take every lock of the file ``store``: no daemon has it open, and none can open it meanwhile.

    Raises:
        InstanceLockTaken: a daemon has it open.
        OSError: a lock's file cannot be made.
    """
    made: list[Path] = []
    with ExitStack() as taken:
        try:
            for path in (_path_of(store, number) for number in range(MAX_INSTANCES)):
                if not path.exists():
                    made.append(path)
                descriptor = _lock(path)
                if descriptor is None:
                    raise InstanceLockTaken(f"a daemon has {store} open")
                taken.callback(os.close, descriptor)
                if (
                    path in made
                ):  # Should this process be killed, the daemon can still take the lock.
                    _give_to_owner_of(store.parent, descriptor)
            yield
        finally:
            # Before the locks go, so that nobody takes a lock whose file is about to be removed.
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
