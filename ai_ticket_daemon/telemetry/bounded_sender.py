"""A queue with a bound, and a thread that empties it: what is told to others costs nobody time.

Log lines and spans go out this way. Whoever takes them may be slow, away or stuck; then they wait
here, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")


class BoundedSender(Generic[Item]):
    """Sends items in their order: at once where that does not block, else from a thread.

    The thread is started when an item has to wait, and again if it died for want of memory.

    Args:
        name: of the thread.
        send: sends a batch and may block; False: it is to be tried again. What it loses it counts
            itself, unless that is done already (``is_abandoned``).
        dropped: told how many items were lost; called from whichever thread notices.
        bound: how much may wait, in the unit of ``weigh``. One item may be heavier by itself.
        weigh: returns how much of the bound an item takes.
        send_now: sends one item if that does not block, and returns whether it did.
        batch_size: how many items go at once at the most.
        delay_seconds: how long an item may wait for a batch to fill.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[Item]], bool],
        *,
        dropped: Callable[[int], None],
        bound: int,
        weigh: Callable[[Item], int] = lambda _item: 1,
        send_now: Callable[[Item], bool] = lambda _item: False,
        batch_size: int = 1,
        delay_seconds: float = 0.0,
    ) -> None:
        self._name = name
        self._send = send
        self._dropped = dropped
        self._bound = bound
        self._weigh = weigh
        self._send_now = send_now
        self._batch_size = batch_size
        self._delay_seconds = delay_seconds
        self._waiting: deque[Item] = deque()
        self._weight = 0
        self._more = threading.Condition()
        self._thread: threading.Thread | None = None
        self._give_up_at: float | None = None
        self.is_abandoned = False
        """Whether what was waiting has been counted as lost."""

    @property
    def is_idle(self) -> bool:
        """Whether everything so far is out."""
        return not self._waiting

    @property
    def is_running(self) -> bool:
        """Whether there is a thread that sends what waits."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_closing(self) -> bool:
        """Whether it takes nothing more that would have to wait."""
        return self._give_up_at is not None

    def put(self, item: Item) -> None:
        """Send ``item`` now or soon; never blocks, drops it if too much waits already."""
        if not self._taken(item):
            self._dropped(1)

    def _taken(self, item: Item) -> bool:
        with self._more:
            if self._waiting and not self.is_running:
                self._send_what_fits()
            if not self._waiting and self._send_now(item):
                return True
            weight = self._weigh(item)
            fits = not self._waiting or self._weight + weight <= self._bound
            if fits and not self.is_closing:
                self._waiting.append(item)
                self._weight += weight
                number = len(self._waiting)
                # Waking the thread for each item would cost more than all the rest.
                if number == 1 or number >= self._batch_size:
                    self._more.notify()
            if not self.is_running and not self.is_closing:
                self._start()
            return fits and not self.is_closing

    def _start(self) -> None:
        with suppress(RuntimeError, MemoryError):  # no thread to be had: tried with the next item
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def _send_what_fits(self) -> None:
        """Without a thread: send what can be sent at once."""
        while self._waiting and self._send_now(self._waiting[0]):
            self._forget(1)

    def close(self, timeout_seconds: float, *, grace_seconds: float = 0.0) -> None:
        """Send what waits, for ``timeout_seconds`` at the most; count the rest as dropped.

        ``grace_seconds``: how long one call of ``send`` may go on after that.
        """
        self.finish(timeout_seconds)
        self.abandon(grace_seconds)

    def finish(self, timeout_seconds: float) -> None:
        """Take nothing more, and send what waits, for ``timeout_seconds`` at the most."""
        with self._more:
            self._give_up_at = time.monotonic() + timeout_seconds
            self._more.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def abandon(self, grace_seconds: float) -> None:
        """Wait ``grace_seconds`` more for the thread; what waits then is lost."""
        if self._thread is not None:
            self._thread.join(grace_seconds)
        with self._more:
            if not self.is_running:
                self._send_what_fits()
            self.is_abandoned = True
            lost = len(self._waiting)
            self._forget(lost)
        if lost:
            self._dropped(lost)

    def _run(self) -> None:
        with suppress(MemoryError):  # started again with the next item
            while batch := self._next():
                while not (sent := self._send(batch)) and not self._is_late():
                    pass
                with self._more:
                    if self.is_abandoned:
                        return
                    self._forget(len(batch))
                if not sent:
                    self._dropped(len(batch))

    def _next(self) -> list[Item]:
        """Wait for a batch and return it, still in the queue; empty once it is time to end."""
        with self._more:
            while not self._waiting and not self.is_closing:
                self._more.wait()
            if self._delay_seconds:
                self._more.wait_for(self._is_due, self._delay_seconds)
            if self._is_late():
                return []
            number = min(len(self._waiting), self._batch_size)
            return [self._waiting[index] for index in range(number)]

    def _is_due(self) -> bool:
        return len(self._waiting) >= self._batch_size or self.is_closing

    def _is_late(self) -> bool:
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    def _forget(self, number: int) -> None:
        for _ in range(number):
            self._weight -= self._weigh(self._waiting.popleft())
