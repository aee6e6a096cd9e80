"""Watching and stopping a generation on KoboldCPP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.abort import abort_reason, abort_until
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.perf import read_perf

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.abort import AbortObserver
    from ai_ticket_daemon.backends.exchange import Exchange
    from ai_ticket_daemon.backends.wire import Wire

CHECK_PATH = "/api/extra/generate/check"
_CONFIRM_SECONDS = 1.0
"""Between two looks that have to agree before a request is given up as lost."""


class KoboldGuard:
    """Guards one generation.

    Args:
        wire: leads to the server.
        genkey: names the generation.
        look_seconds: between two looks at a generation that goes on.
        on_abort: is told of an abort.
    """

    def __init__(
        self, wire: Wire, genkey: str, *, look_seconds: float, on_abort: AbortObserver
    ) -> None:
        self._wire = wire
        self._genkey = genkey
        self._look_seconds = look_seconds
        self._on_abort = on_abort
        self._characters = 0
        self._idle_looks = 0

    async def look(self, exchange: Exchange) -> Seen | float:
        """See :class:`Guard`: a plain generation shows no progress by itself, so it is asked for.

        A server that does nothing while a request waits for its first byte has lost it.
        """
        if exchange.sent_at is None:
            return self._look_seconds
        if exchange.answering_plainly or (exchange.stream and exchange.progress_at is not None):
            return math.inf  # What comes, or does not come, over the wire says it all.
        try:
            if not exchange.stream and await self._advanced():
                exchange.progress_at = trio.current_time()
                self._idle_looks = 0
                return self._look_seconds
            perf = await read_perf(self._wire)
        except AttemptFailed:
            return self._look_seconds
        if not perf.idle or perf.queue > 0:
            self._idle_looks = 0
            return self._look_seconds
        self._idle_looks += 1
        if self._idle_looks < 2:
            return _CONFIRM_SECONDS
        return Seen.SILENT_STREAM if exchange.answering else Seen.LOST

    async def stop(self, exchange: Exchange, reason: Seen | None) -> bool:
        """See :class:`Guard`; takes ``ABORT_BOUND_SECONDS`` at the most."""
        if exchange.sent_at is None or reason in (Seen.LOST, Seen.SILENT_STREAM):
            return True  # There is nothing to abort, only a connection to close.
        freed = await abort_until(exchange.finished, self._wire, self._genkey)
        self._on_abort(abort_reason(reason), freed)
        return freed

    async def _advanced(self) -> bool:
        """Whether the generation has more text than at the last look."""
        answer = await self._wire.call("POST", CHECK_PATH, {"genkey": self._genkey})
        match answer:
            case {"results": [{"text": str(text)}, *_]}:
                before, self._characters = self._characters, len(text)
                return self._characters > before
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
