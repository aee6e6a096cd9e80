"""What the daemon's user may read and write, seen through the eyes of that user."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


@contextmanager
def seen_by(user: str | None) -> Iterator[None]:
    """Have the rights of ``user`` for the length of a block, if root asks and there is that user.

    For a program that does nothing else meanwhile: rights are those of the whole process.
    """
    try:
        entry = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
    except KeyError:
        entry = None
    if entry is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def unreadable(path: Path) -> str | None:
    """Return why a file cannot be read; None if it can."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def is_home(path: Path) -> bool:
    """Return whether a path leads into a home directory, which a service may not see."""
    return any(path.resolve().is_relative_to(home) for home in _HOMES)


def unwritable_directory(path: Path) -> str | None:
    """Return why no file can be made in a directory, which may yet have to be made itself."""
    existing = path
    while not _exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is not a directory"
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        return f"{existing} may not be written to"
    return None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
