from __future__ import annotations

import errno

import apsw
import httpcore
import httpx
import pytest

from ai_ticket_daemon.host.exhaustion import (
    RECENT_SECONDS,
    SAY_EVERY_SECONDS,
    Exhaustion,
    Resource,
    descriptors_left,
    exhausted,
    exhausted_by_name,
)
from tests.support.lacks import no_descriptors

FULL = OSError(errno.EMFILE, "Too many open files")
NO_THREAD = RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("error", "resource"),
    [
        (FULL, Resource.DESCRIPTORS),
        (OSError(errno.ENFILE, ""), Resource.DESCRIPTORS),
        (OSError(errno.ENOMEM, ""), Resource.MEMORY),
        (OSError(errno.ENOBUFS, ""), Resource.BUFFERS),
        (MemoryError(), Resource.MEMORY),
        (apsw.NoMemError(), Resource.MEMORY),
        (NO_THREAD, Resource.THREADS),
        (ExceptionGroup("", [ExceptionGroup("", [FULL])]), Resource.DESCRIPTORS),
        (httpx.ConnectError("told by its cause"), None),
        (httpcore.ConnectError(FULL), Resource.DESCRIPTORS),
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), None),
        (OSError(errno.ENOSPC, "the disk's fault"), None),
        (RuntimeError("something else"), None),
        (ExceptionGroup("", [FULL, ValueError("a fault of the program")]), None),
    ],
)
def test_what_an_error_says_that_the_host_lacks(
    error: Exception, resource: Resource | None
) -> None:
    assert exhausted(error) is resource


def test_a_cause_counts_and_one_of_several_tries_is_enough() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "")
    outer = OSError("all attempts to connect failed")
    outer.__cause__ = ExceptionGroup("", [refused, FULL])
    assert exhausted(outer) is Resource.DESCRIPTORS
    outer.__cause__ = ExceptionGroup("", [refused])
    assert exhausted(outer) is None


def test_what_does_not_say_why_it_failed_is_looked_at_closer() -> None:
    unsaid = apsw.CantOpenError("unable to open database file")
    assert descriptors_left()
    assert exhausted_by_name(unsaid) is None
    with no_descriptors():
        found = exhausted_by_name(unsaid)
    assert found is Resource.DESCRIPTORS


def test_a_lack_is_said_once_in_a_while_and_is_known_while_it_lasts() -> None:
    now = 100.0
    said: list[tuple[Resource, str, int]] = []
    counted: list[Resource] = []
    exhaustion = Exhaustion(lambda *what: said.append(what), counted.append, clock=lambda: now)
    for _ in range(50):
        assert exhaustion.meets(FULL, "http") is Resource.DESCRIPTORS
    assert exhaustion.meets(ValueError(), "http") is None
    assert said == [(Resource.DESCRIPTORS, "http", 1)]
    assert len(counted) == 50
    exhaustion.met(Resource.THREADS, "capture")
    assert said[1:] == [(Resource.THREADS, "capture", 1)]
    assert list(exhaustion.now) == [Resource.DESCRIPTORS, Resource.THREADS]

    now += RECENT_SECONDS
    assert not exhaustion.now
    now += SAY_EVERY_SECONDS
    exhaustion.met(Resource.DESCRIPTORS, "metrics")
    assert said[2:] == [(Resource.DESCRIPTORS, "metrics", 50)]
