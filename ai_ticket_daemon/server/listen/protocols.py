"""The protocol of one connection: HTTP/1.1, HTTP/2, or the one that turns out to be the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H2ProtocolAssumedError

from ai_ticket_daemon.server.listen.connection_state import PLACE
from ai_ticket_daemon.server.listen.http1 import Http1
from ai_ticket_daemon.server.listen.http1_asgi import AsgiHttp1
from ai_ticket_daemon.server.listen.http2 import Http2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ai_ticket_daemon.server.listen.http1 import OpenExchange


class Protocol:
    """The protocol a connection speaks; HTTP/1.1 may turn into HTTP/2 with its first request.

    Args:
        arguments: what hypercorn's protocols are made with.
        use_h2: the client asked for HTTP/2 during the TLS handshake.
        open_exchange: serves requests of HTTP/1 without ASGI; None: by ASGI.
        write: sends bytes; returns whether the client is still there.
        on_resume: called when :meth:`resume` should be called, by whoever reads.
        on_malformed: called when the client breaks the rules of the protocol.
    """

    def __init__(
        self,
        arguments: tuple[Any, ...],
        *,
        use_h2: bool,
        open_exchange: OpenExchange | None,
        write: Callable[[bytes], Awaitable[bool]],
        on_resume: Callable[[], None],
        on_malformed: Callable[[], None],
    ) -> None:
        self._arguments = arguments
        self._on_malformed = on_malformed
        self._protocol: Http1 | AsgiHttp1 | Http2
        if use_h2:
            self._protocol = Http2(*arguments, on_malformed=on_malformed)
        elif open_exchange is None:
            self._protocol = AsgiHttp1(*arguments, on_resume=on_resume, on_malformed=on_malformed)
        else:
            _, _, context, tasks, state, is_secure, client, _, tell = arguments
            self._protocol = Http1(
                open_exchange,
                start=tasks.spawn,
                write=write,
                tell=tell,
                place=state[PLACE],
                peer=None if client is None else client[0],
                is_secure=is_secure,
                stops=context.terminated.is_set,
                on_resume=on_resume,
                on_malformed=on_malformed,
            )

    @property
    def room_bytes(self) -> int | None:
        """How much more may be read before :meth:`resume`; None for no such bound."""
        return None if isinstance(self._protocol, Http2) else self._protocol.room_bytes

    async def initiate(self) -> None:
        """Begin."""
        await self._protocol.initiate()

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or the news that it has gone."""
        await self._turning(self._protocol.handle(event))

    async def resume(self) -> None:
        """Go on with what the client sent ahead."""
        if not isinstance(self._protocol, Http2):
            await self._turning(self._protocol.resume())

    async def headers_timed_out(self) -> None:
        """Tell a client that was too slow, if it can be told."""
        if not isinstance(self._protocol, Http2):
            await self._protocol.headers_timed_out()

    async def _turning(self, step: Awaitable[None]) -> None:
        try:
            await step
        except H2ProtocolAssumedError as error:
            self._protocol = Http2(*self._arguments, on_malformed=self._on_malformed)
            await self._protocol.initiate()
            await self._protocol.handle(RawData(data=error.data))
