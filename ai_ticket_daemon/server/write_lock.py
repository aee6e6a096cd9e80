"""One task writes at a time."""

from __future__ import annotations

import trio


class WriteLock:
    """A lock that costs no turn of the loop where nobody else holds it, which is the rule.

    Whoever is cancelled does not get it. What is done under it has to give a turn away itself, as
    writing to a socket does.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()

    @property
    def is_held(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()

    async def __aexit__(self, *_error: object) -> None:
        self._lock.release()
