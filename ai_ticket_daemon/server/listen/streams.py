"""hypercorn's stream: what turns one request of a connection into a call of the app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercorn.protocol.http_stream import HTTPStream

if TYPE_CHECKING:
    from hypercorn.protocol.h2 import H2Protocol
    from hypercorn.protocol.h11 import H11Protocol


def open_stream(protocol: H11Protocol | H2Protocol, stream_id: int) -> HTTPStream:
    """Return the stream of a request that came in over ``protocol``."""
    return HTTPStream(
        protocol.app,
        protocol.config,
        protocol.context,
        protocol.task_group,
        protocol.ssl,
        protocol.client,
        protocol.server,
        protocol.stream_send,
        stream_id,
    )
