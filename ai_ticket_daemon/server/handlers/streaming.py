"""An event's completion as server-sent events, with heartbeats where there is nothing to say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.server.answers import HEARTBEAT, delta_frame
from ai_ticket_daemon.server.write_lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.ports import Submission


async def relay_deltas(
    submission: Submission, write: Callable[[bytes], Awaitable[None]], *, heartbeat_seconds: float
) -> Outcome:
    """Write each piece of the completion as it comes, and return how the event ended.

    Args:
        submission: the event.
        write: hands bytes to the client; returns when they are on their way.
        heartbeat_seconds: the longest silence; a heartbeat is also the first thing written, so
            that proxies and clients see at once that the stream is there.
    """
    pulse = Pulse(write, HEARTBEAT, heartbeat_seconds)
    await pulse.write(HEARTBEAT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse.beat)
        deltas = submission.deltas()
        try:
            async for delta in deltas:
                await pulse.write(delta_frame(delta))
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()
        outcome = await submission.outcome()
        nursery.cancel_scope.cancel()
    return outcome


class Pulse:
    """Writes, one after the other, and into silences a heartbeat.

    Args:
        write: hands bytes to the client; returns when they are on their way.
        heartbeat: what to write where there is nothing to say.
        interval_seconds: the longest silence.
    """

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        heartbeat: bytes,
        interval_seconds: float,
    ) -> None:
        self._write = write
        self._heartbeat = heartbeat
        self._interval_seconds = interval_seconds
        self._due_at = 0.0
        self._one_at_a_time = WriteLock()
        self.has_begun = False

    async def write(self, data: bytes) -> None:
        """Write ``data``; the next heartbeat is due after as long a silence as is allowed."""
        async with self._one_at_a_time:
            await self._put(data)

    async def beat(self, first_after_seconds: float = 0.0) -> None:
        """Write heartbeats into silences, until cancelled.

        If nothing has been written by then, the first comes after ``first_after_seconds``.
        """
        if not self.has_begun:
            self._due_at = trio.current_time() + first_after_seconds
        while True:
            await trio.sleep_until(self._due_at)
            async with self._one_at_a_time:
                if trio.current_time() >= self._due_at:
                    await self._put(self._heartbeat)

    async def _put(self, data: bytes) -> None:
        self.has_begun = True
        await self._write(data)
        self._due_at = trio.current_time() + self._interval_seconds
