"""A change that several tasks can wait for, without a mailbox that could fill."""

from __future__ import annotations

import trio


class Wakeup:
    """Counts changes and wakes the tasks that wait for the next one.

    A task notes :attr:`version` before it looks at the state, and waits for a later one after; so
    a change that happens while it looks is never missed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._event: trio.Event | None = None
        self._followers: list[Wakeup] = []

    def notify(self) -> None:
        """Note a change and wake all tasks that wait now."""
        self.version += 1
        event, self._event = self._event, None
        if event is not None:
            event.set()
        for follower in self._followers:
            follower.notify()

    def forward_to(self, follower: Wakeup) -> None:
        """Notify ``follower`` of each change, too: its waiters wait for either of the two."""
        self._followers.append(follower)

    async def wait(self, seen: int) -> None:
        """Return as soon as :attr:`version` is another one than ``seen``."""
        while self.version == seen:
            if self._event is None:
                self._event = trio.Event()
            await self._event.wait()
