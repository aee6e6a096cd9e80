"""What the host can run out of, how that is told from other faults, and what is known of it now.

A lack of threads, file descriptors or memory is nobody's fault: not of the program, not of a
server, not of an event. Whoever meets one waits and tries again, and notes it here. So it is said
under one name everywhere, in the journal as often as is of use, and in ``/health`` while it lasts.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RECENT_SECONDS = 10.0
"""How long after it was last met a lack counts as lasting."""

SAY_EVERY_SECONDS = 60.0
"""Between two lines of the journal about one resource."""

AGAIN_SECONDS = 1.0
"""How long to wait before what failed for a lack is tried again."""

SPARE_DESCRIPTORS = 4
"""As many have to be free for none to be lacking: a store's file and its log take three."""


class Resource(StrEnum):
    """What the host can run out of."""

    DESCRIPTORS = "file descriptors"
    THREADS = "threads"
    MEMORY = "memory"
    BUFFERS = "socket buffers"

    @property
    def lack(self) -> str:
        """What is said where it is exhausted."""
        return f"out of {self.value}"


_BY_NUMBER: Mapping[int, Resource] = MappingProxyType(
    {
        errno.EMFILE: Resource.DESCRIPTORS,
        errno.ENFILE: Resource.DESCRIPTORS,
        errno.ENOMEM: Resource.MEMORY,
        errno.ENOBUFS: Resource.BUFFERS,
    }
)
_NO_THREAD = "can't start new thread"
_NO_MEMORY = "NoMemError"
"""SQLite's; known by name, so that whoever has no store needs no SQLite."""


def exhausted(error: BaseException) -> Resource | None:
    """Return what ``error`` says that the host has run out of; None if it says something else.

    Its causes count, too. A group says so only if each error in it does.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [exhausted(one) for one in error.exceptions]
        return found[0] if all(found) else None
    return _own(error) or next(filter(None, map(exhausted, _causes(error))), None)


def exhausted_by_name(error: BaseException) -> Resource | None:
    """Return the same for an error that can have a lack behind it without saying so.

    SQLite says "unable to open", and a look-up of a name "temporary failure", whatever the reason.
    """
    known = exhausted(error)
    if known is None and not descriptors_left():
        return Resource.DESCRIPTORS
    return known


def descriptors_left(number: int = SPARE_DESCRIPTORS) -> bool:
    """Return whether so many more files could be opened now."""
    taken: list[int] = []
    try:
        for _ in range(number):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401
    except OSError as error:
        return exhausted(error) is None
    finally:
        for descriptor in taken:
            os.close(descriptor)
    return True


def _own(error: BaseException) -> Resource | None:
    match error:
        case MemoryError():
            return Resource.MEMORY
        case OSError():
            return _BY_NUMBER.get(error.errno or 0)
        case RuntimeError() if _NO_THREAD in str(error):
            return Resource.THREADS
    return Resource.MEMORY if type(error).__name__ == _NO_MEMORY else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    if error.__cause__ is not None:
        yield from _leaves(error.__cause__)
    # Those of HTTP libraries hold what they stand for as an argument.
    for argument in error.args:
        if isinstance(argument, BaseException):
            yield from _leaves(argument)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Of several tries behind one failure, one that met a lack is enough: nobody knows better."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


@dataclass(slots=True)
class Exhaustion:
    """What the host lacks now; noted from any thread, told within bounds.

    Args:
        say: told the resource, who met the lack, and how often it was met since the last time; once
            in ``SAY_EVERY_SECONDS`` for each resource.
        count: told each time.
        clock: seconds, monotonic.
    """

    say: Callable[[Resource, str, int], None] = lambda _resource, _where, _times: None
    count: Callable[[Resource], None] = lambda _resource: None
    clock: Callable[[], float] = time.monotonic
    _met_at: dict[Resource, float] = field(default_factory=dict)
    _said_at: dict[Resource, float] = field(default_factory=dict)
    _unsaid: dict[Resource, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def met(self, resource: Resource, where: str) -> None:
        """Note that ``where`` something could not be done for the lack of it."""
        now = self.clock()
        with self._lock:
            self._met_at[resource] = now
            self._unsaid[resource] = self._unsaid.get(resource, 0) + 1
            said_at = self._said_at.get(resource)
            due = said_at is None or now - said_at >= SAY_EVERY_SECONDS
            if due:
                self._said_at[resource] = now
            times = self._unsaid.pop(resource) if due else 0
        # Whoever tells it needs some of it, too: what cannot be told now is told the next time.
        with suppress(MemoryError, OSError, RuntimeError):
            self.count(resource)
            if due:
                self.say(resource, where, times)

    def meets(self, error: BaseException, where: str) -> Resource | None:
        """Note what ``error`` says that the host lacks, and return it; None if that is nothing."""
        resource = exhausted(error)
        if resource is not None:
            self.met(resource, where)
        return resource

    @property
    def now(self) -> tuple[Resource, ...]:
        """What was lacking within the last ``RECENT_SECONDS``."""
        since = self.clock() - RECENT_SECONDS
        with self._lock:
            return tuple(resource for resource, at in self._met_at.items() if at > since)
