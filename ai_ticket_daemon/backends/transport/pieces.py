"""Reading from servers in small pieces, so that none of them takes long to be made sense of.

All that one read brings is parsed before anything else runs: 64 KiB of empty answers (``100
Continue``) would hold everything up for a tenth of a second. httpx has no setting for it; what is
here stands between its connections and the sockets.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import httpx

PIECE_BYTES = 8 * 1024
_pool_of = attrgetter("_pool")


def read_in_pieces(transport: httpx.AsyncHTTPTransport) -> None:
    """Have ``transport`` read at most ``PIECE_BYTES`` at a time from its connections."""
    pool = vars(_pool_of(transport))
    pool["_network_backend"] = _Network(pool["_network_backend"])


class _Network:
    """Makes connections that are read in pieces."""

    def __init__(self, network: Any) -> None:
        self._network = network

    async def connect_tcp(self, *args: Any, **options: Any) -> _Stream:
        """Connect, as the one behind it does."""
        return _Stream(await self._network.connect_tcp(*args, **options))


class _Stream:
    """A connection that is read in pieces."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.write = stream.write
        self.aclose = stream.aclose
        self.get_extra_info = stream.get_extra_info

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Return what there is, but not too much of it."""
        data: bytes = await self._stream.read(min(max_bytes, PIECE_BYTES), timeout)
        return data

    async def start_tls(self, *args: Any, **options: Any) -> _Stream:
        """Go on with TLS; one that is given up half-way is closed, which httpcore leaves undone."""
        secure: _Stream | None = None
        try:
            secure = _Stream(await self._stream.start_tls(*args, **options))
        finally:
            if secure is None:
                with trio.CancelScope(shield=True):
                    await self._stream.aclose()
        return secure
