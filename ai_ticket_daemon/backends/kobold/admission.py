"""Sending to a KoboldCPP that lets nobody wait (``--multiuser 0``).

Such a server refuses with 503 what comes before it has let its lock go, 0.05 to 0.2 seconds after
an answer. Others hold the request until then, in their queue. So once one was found to have no
queue, nothing is sent there until it says that it is idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.kobold.perf import read_perf
from ai_ticket_daemon.backends.observation import AttemptFailed

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.wire import Wire

BUSY_STATUS = 503
_LONGEST_SECONDS = 2.0
"""After so long it is busy with others, and its refusal says for how long to leave it alone."""
_ASK_EVERY_SECONDS = 0.05


class Admission:
    """Knows whether one server has a queue; until it was seen to have none, it counts as having."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._has_queue = True

    async def refused(self) -> None:
        """Find out why a request was refused as one too many: a queue that is full is not empty."""
        try:
            self._has_queue = (await read_perf(self._wire)).queue > 0
        except AttemptFailed:
            return

    async def wait(self) -> None:
        """Wait until a server without a queue is idle, but not for long."""
        if self._has_queue:
            return
        with trio.move_on_after(_LONGEST_SECONDS):
            try:
                while not (await read_perf(self._wire)).idle:  # noqa: ASYNC110 - it has to be asked
                    await trio.sleep(_ASK_EVERY_SECONDS)
            except AttemptFailed:
                return  # The request itself will tell.
