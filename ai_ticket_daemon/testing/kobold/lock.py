"""The generation lock, with a place for each that shares a batch, and the queue in front of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import random

    from .settings import KoboldSettings

__all__ = ["GenerationLock"]


class _Waiter:
    """One waiting request."""

    __slots__ = ("gap_seconds", "owner", "turn")

    def __init__(self) -> None:
        self.turn = trio.Event()
        self.owner = False
        self.gap_seconds = 0.0


class GenerationLock:
    """As many holders as share a batch, a few waiting, and an order that newcomers can break.

    The real server uses a lock of the operating system: on release the first waiting thread is
    woken, but until it runs, a thread that has just arrived can take the lock.
    """

    def __init__(self, settings: KoboldSettings, accidents: random.Random) -> None:
        self._holders = 0
        self.overtaken_total = 0
        self._limit = settings.queue_limit
        self._settings = settings
        self._accidents = accidents
        self._waiters: deque[_Waiter] = deque()

    @property
    def held(self) -> bool:
        """Whether anybody holds it."""
        return self._holders > 0

    @property
    def waiting(self) -> int:
        """Requests that wait, without the one that holds the lock."""
        return len(self._waiters)

    def try_acquire(self) -> bool:
        """Take a place if one is free this very moment, whoever may be waiting."""
        if self._holders >= self._settings.parallel:
            return False
        self._holders += 1
        return True

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self._waiters) >= self._limit

    async def wait(self) -> None:
        """Wait for the lock until it is ours; the caller has looked at `full` before."""
        waiter = _Waiter()
        self._waiters.append(waiter)
        try:
            while True:
                await waiter.turn.wait()
                if waiter.owner:
                    return
                waiter.turn = trio.Event()
                await trio.sleep(waiter.gap_seconds)
                if self.try_acquire():
                    self._waiters.remove(waiter)
                    return
                self.overtaken_total += 1
        except trio.Cancelled:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.owner:
                self.release()
            raise

    def release(self) -> None:
        """Give the lock back: hand it to the first waiting request, or leave a gap for others."""
        if not self._waiters:
            self._holders -= 1
            return
        settings = self._settings
        if settings.overtake and self._accidents.random() < settings.overtake_chance:
            first = self._waiters[0]
            first.gap_seconds = settings.overtake_gap_seconds
            self._holders -= 1
        else:
            first = self._waiters.popleft()
            first.owner = True
        first.turn.set()
