"""The exceptions of others on the wire, and what each says of an attempt: the one map."""

from __future__ import annotations

import httpx
import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen

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
FOREIGN = tuple(foreign for foreign, _, _ in _MEANINGS)


def translate(error: Exception, *, answering: bool) -> AttemptFailed:
    """Return what an exception of httpx, trio or the system says of the attempt.

    Args:
        error: the foreign exception.
        answering: whether the head of the answer had been read.
    """
    for foreign, before, inside in _MEANINGS:
        if isinstance(error, foreign):
            seen = inside if answering else before
            if seen is Seen.NO_BYTE and _comes_from_parser(error):
                seen = Seen.NOT_HTTP
            return AttemptFailed.seen(seen)
    raise error


def _comes_from_parser(error: BaseException) -> bool:
    # httpx has one exception for "closed without a byte" and "answered garbage"; only the second
    # was caused by an exception of its HTTP parser.
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__module__.startswith("h11"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
