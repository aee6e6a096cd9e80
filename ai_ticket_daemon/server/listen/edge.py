"""What is told of connections that were refused or broke: counted each, and logged a few times.

Whoever sends nonsense may send it a thousand times a second; the log must not grow with it. And
what a client did wrong is no fault of the daemon's, whatever a library makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h2.exceptions
import h11
import hpack.exceptions
import hyperframe.exceptions
import trio
from hypercorn.utils import UnexpectedMessageError
from priority.priority import PriorityError

from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.server.ports import ConnectionRefusal

if TYPE_CHECKING:
    import logging

    from ai_ticket_daemon.server.ports import ConnectionObserver

TELL_EVERY_SECONDS = 10.0
"""How often at most the log is told of each kind of refusal, and of crashes."""

FAULTS_OF_CLIENTS = (
    h11.ProtocolError,
    h2.exceptions.H2Error,
    hpack.exceptions.HPACKError,
    hyperframe.exceptions.HyperframeError,
    PriorityError,
    UnexpectedMessageError,
)
"""What the libraries below raise for what a client sent, or for when it left."""

_WHY = {
    ConnectionRefusal.MALFORMED: "malformed",
    ConnectionRefusal.ADDRESS_FULL: "more than http.max_connections_per_address",
    ConnectionRefusal.FULL: "more than http.max_connections",
}


class Edge:
    """Takes note of refusals and crashes. Owns what is still to be told of them.

    Args:
        logger: told of refusals at ``info``, of crashes at ``error``.
        observer: told of each refusal.
        exhaustion: told of what the host lacks.
    """

    def __init__(
        self,
        logger: logging.Logger,
        observer: ConnectionObserver,
        exhaustion: Exhaustion | None = None,
    ) -> None:
        self._exhaustion = exhaustion or Exhaustion()
        self._logger = logger
        self._observer = observer
        self._untold = dict.fromkeys(ConnectionRefusal, 0)
        self._told_at = dict.fromkeys(ConnectionRefusal, float("-inf"))
        self._crashes_untold = 0
        self._crash_told_at = float("-inf")

    def refused(self, why: ConnectionRefusal) -> None:
        """Take note of a connection that was refused, or ended for what came over it."""
        self._observer.refused(why)
        self._untold[why] += 1
        self._tell_refusals(why)

    def failed(self, error: BaseException) -> None:
        """Take note of what a connection or a request on it raised."""
        if _is_fault_of_client(error):
            self.refused(ConnectionRefusal.MALFORMED)
            return
        if self._exhaustion.meets(error, "http") is not None:
            return
        now = trio.current_time()
        if now - self._crash_told_at < TELL_EVERY_SECONDS:
            self._crashes_untold += 1
            return
        self._crash_told_at = now
        self._logger.error("connection_crashed", exc_info=error)

    async def run(self) -> None:
        """Tell now and then of what was held back; runs until cancelled."""
        while True:
            await trio.sleep(TELL_EVERY_SECONDS)
            for why in ConnectionRefusal:
                self._tell_refusals(why)
            if self._crashes_untold:
                self._logger.error("%d more connections crashed", self._crashes_untold)
                self._crashes_untold = 0

    def _tell_refusals(self, why: ConnectionRefusal) -> None:
        now, count = trio.current_time(), self._untold[why]
        if count and now - self._told_at[why] >= TELL_EVERY_SECONDS:
            self._untold[why], self._told_at[why] = 0, now
            noun = "connection" if count == 1 else "connections"
            self._logger.info("%d %s refused: %s", count, noun, _WHY[why])


def _is_fault_of_client(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_fault_of_client(inner) for inner in error.exceptions)
    return isinstance(error, FAULTS_OF_CLIENTS)
