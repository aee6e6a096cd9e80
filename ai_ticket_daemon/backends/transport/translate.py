"""The exceptions of others on the wire, and what each says of an attempt: the one map."""

from __future__ import annotations

import socket

import httpx
import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.host.exhaustion import exhausted, exhausted_by_name

# From an exception to what it means before and inside an answer; the first match counts.
_MEANINGS: tuple[tuple[type[Exception], Seen, Seen], ...] = (
    (httpx.ConnectTimeout, Seen.CONNECT_TIMEOUT, Seen.CONNECT_TIMEOUT),
    (httpx.PoolTimeout, Seen.CONNECT_TIMEOUT, Seen.CONNECT_TIMEOUT),
    (httpx.ConnectError, Seen.UNREACHABLE, Seen.UNREACHABLE),
    (httpx.ProxyError, Seen.UNREACHABLE, Seen.UNREACHABLE),
    (httpx.UnsupportedProtocol, Seen.UNREACHABLE, Seen.UNREACHABLE),
    (httpx.TimeoutException, Seen.NO_REPLY, Seen.NO_REPLY),
    (httpx.RemoteProtocolError, Seen.NO_BYTE, Seen.CUT),
    (httpx.ProtocolError, Seen.NOT_HTTP, Seen.CUT),
    (httpx.DecodingError, Seen.NOT_HTTP, Seen.NOT_HTTP),
    (httpx.TransportError, Seen.BROKEN, Seen.CUT),
    (httpx.HTTPError, Seen.NOT_HTTP, Seen.NOT_HTTP),
    (httpx.StreamError, Seen.BROKEN, Seen.CUT),
    (OSError, Seen.BROKEN, Seen.CUT),
    (trio.BrokenResourceError, Seen.BROKEN, Seen.CUT),
    (trio.ClosedResourceError, Seen.BROKEN, Seen.CUT),
)
# What there is to translate; of the last two only what says that this host is out of something.
FOREIGN: tuple[type[Exception], ...] = (
    *(foreign for foreign, _, _ in _MEANINGS),
    RuntimeError,
    MemoryError,
)


def translate(error: Exception, *, answering: bool) -> AttemptFailed:
    """Return what an exception of httpx, trio or the system says of the attempt.

    Args:
        error: the foreign exception.
        answering: whether the head of the answer had been read.
    """
    # A name that cannot be looked up may be one for which no socket could be had.
    unnamed = isinstance(error, httpx.ConnectError) and _comes_from_resolver(error)
    lacking = exhausted_by_name(error) if unnamed else exhausted(error)
    if lacking is not None:
        return AttemptFailed(Observation(Seen.HOST_EXHAUSTED, lacking=lacking))
    for foreign, before, inside in _MEANINGS:
        if isinstance(error, foreign):
            seen = inside if answering else before
            if seen is Seen.NO_BYTE and _comes_from_parser(error):
                seen = Seen.NOT_HTTP
            return AttemptFailed.seen(seen)
    raise error


def _comes_from_resolver(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _comes_from_parser(error: BaseException) -> bool:
    # httpx has one exception for "closed without a byte" and "answered garbage"; only the second
    # was caused by an exception of its HTTP parser.
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__module__.startswith("h11"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
