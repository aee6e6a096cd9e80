"""The exceptions of trio and the system on the wire, and what each says of an attempt."""

from __future__ import annotations

import socket
from enum import Enum

import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.host.exhaustion import exhausted, exhausted_by_name


class Stage(Enum):
    """How far an attempt had come."""

    CONNECTING = "connecting"
    ASKING = "asking"
    """Connected; the head of the answer had not been read."""
    ANSWERING = "answering"


_BROKEN: tuple[type[Exception], ...] = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_MEANINGS = {
    Stage.CONNECTING: Seen.UNREACHABLE,
    Stage.ASKING: Seen.BROKEN,
    Stage.ANSWERING: Seen.CUT,
}
# What there is to translate; of the last two only what says that this host is out of something.
FOREIGN: tuple[type[Exception], ...] = (
    *_BROKEN,
    trio.TooSlowError,
    RuntimeError,
    MemoryError,
)


def translate(error: Exception, stage: Stage) -> AttemptFailed:
    """Return what an exception of trio or the system says of the attempt."""
    # A name that cannot be looked up may be one for which no socket could be had.
    unnamed = stage is Stage.CONNECTING and _comes_from_resolver(error)
    lacking = exhausted_by_name(error) if unnamed else exhausted(error)
    if lacking is not None:
        return AttemptFailed(Observation(Seen.HOST_EXHAUSTED, lacking=lacking))
    if isinstance(error, trio.TooSlowError):
        return AttemptFailed.seen(Seen.CONNECT_TIMEOUT)
    if isinstance(error, _BROKEN):
        return AttemptFailed.seen(_MEANINGS[stage])
    raise error


def _comes_from_resolver(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
