"""A change that several tasks can wait for, without a mailbox that could fill."""

from __future__ import annotations

import trio


class Wakeup:
    """Counts changes and wakes whoever waits for the next one.

    A waiter notes :attr:`version` before it looks at the state, and waits for a later one after;
    so a change that happens while it looks is never missed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Note a change and wake all who wait now."""
        self.version += 1
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self, seen: int) -> None:
        """Return as soon as :attr:`version` is another one than ``seen``."""
        while self.version == seen:
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()
