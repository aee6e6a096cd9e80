"""One connection to a server: a request goes out, the head of its answer comes in."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.head import MOST_HEAD_BYTES, NotHttp, cut_head, read_head
from ai_ticket_daemon.backends.transport.tcp import open_tcp

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.address import Address
    from ai_ticket_daemon.backends.transport.head import Head
    from ai_ticket_daemon.backends.transport.tcp import TcpStream

# All that one read brings is made sense of before anything else runs.
PIECE_BYTES = 8 * 1024


class Connection:
    """A connection that was opened: what is said on it, in TLS or not, and the TCP below."""

    def __init__(self, stream: trio.abc.Stream, tcp: TcpStream) -> None:
        self._stream = stream
        self._tcp = tcp

    async def ask(self, request: bytes) -> tuple[Head, bytes]:
        """Send a request; return the head of its answer, and what came behind it.

        Raises:
            AttemptFailed: no answer came, or something else.
            trio.BrokenResourceError: the connection broke.
        """
        # A server may answer before it has read everything, and close.
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(request)
        received, heads_bytes = b"", 0
        while heads_bytes <= MOST_HEAD_BYTES:  # Some servers announce an answer again and again.
            more = await self._stream.receive_some(PIECE_BYTES)
            if not more:
                raise AttemptFailed.seen(Seen.NO_BYTE)
            received += more
            try:
                while (cut := cut_head(received)) is not None:
                    raw, received = cut
                    heads_bytes += len(raw)
                    head = read_head(raw)
                    if head is not None:
                        return head, received
            except NotHttp:
                break
        raise AttemptFailed.seen(Seen.NOT_HTTP)

    async def receive(self) -> bytes:
        """Return what comes next; empty at the end.

        Raises:
            trio.BrokenResourceError: the connection broke.
        """
        return bytes(await self._stream.receive_some(PIECE_BYTES))

    @property
    def hides(self) -> bool:
        """Whether bytes may have come that the system no longer sees: TLS reads ahead."""
        return self._stream is not self._tcp

    async def receive_now(self) -> bytes:
        """Return what came already; empty if that is nothing, or the end."""
        if not self.hides:
            return self._tcp.receive_now(PIECE_BYTES)
        with (
            suppress(trio.BrokenResourceError),
            trio.CancelScope(shield=True) as scope,
            self._tcp.cancelling_waits(scope),
        ):
            return bytes(await self._stream.receive_some(PIECE_BYTES))
        return b""

    def is_silent(self) -> bool:
        """Whether nothing came that was not received, not even the end."""
        return self._tcp.is_silent()

    def close(self) -> None:
        """Close it at once. Nothing of TLS is owed to a server: answers say where they end."""
        self._tcp.close()


async def connect(address: Address) -> Connection:
    """Open a connection, with TLS if the server is one of https.

    Raises:
        OSError: it could not be reached.
        trio.BrokenResourceError: TLS could not be agreed on.
    """
    tcp = await open_tcp(address.host, address.port, address.family)
    if address.tls is None:
        return Connection(tcp, tcp)
    secure = trio.SSLStream(tcp, address.tls, server_hostname=address.host, https_compatible=True)
    agreed = False
    try:
        await secure.do_handshake()
        agreed = True
    finally:
        if not agreed:
            tcp.close()
    return Connection(secure, tcp)
