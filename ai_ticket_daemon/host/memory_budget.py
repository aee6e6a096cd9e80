"""One budget for the memory that clients take by what they send and by what they do not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import text_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.events.event import Event

RETRY_SECONDS = 2.0
"""When it is worth to try again: bodies are held only until their events are in the store."""
FREE_BYTES = 16 * 1024
"""How much one client may leave unread that counts nowhere, so that quick readers do without."""
_MESSAGE_BYTES = 100


class MemoryBudget:
    """Knows how much the bodies and the events of all requests take that are not answered yet.

    Args:
        max_bytes: returns how much it may be.
    """

    def __init__(self, max_bytes: Callable[[], int]) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0
        self._peak_bytes = 0

    def take_peak(self) -> int:
        """Return the most that was in use since the last call."""
        peak, self._peak_bytes = self._peak_bytes, self.used_bytes
        return peak

    def share(self) -> MemoryShare:
        """Return what one request will hold; nothing yet."""
        return MemoryShare(self)

    def take(self, number: int) -> bool:
        """Take ``number`` bytes, or give some back if it is negative; False if there is no room."""
        if number > 0 and self.used_bytes + number > self._max_bytes():
            return False
        self.used_bytes += number
        self._peak_bytes = max(self._peak_bytes, self.used_bytes)
        return True

    def unread(self) -> RequestRefused:
        """Return what the client is told for whose completion there is no room."""
        return RequestRefused(
            ErrorCode.MEMORY_EXHAUSTED,
            f"What clients have not read yet takes all of the {self._max_bytes()} bytes that "
            "requests may take together; if the event has ended, GET /event/{id} has its "
            "completion. Read faster, or raise http.max_memory_bytes.",
            details={"max_bytes": self._max_bytes()},
            retry_after_seconds=RETRY_SECONDS,
        )

    def exhausted(self) -> RequestRefused:
        """Return what a request is told for which there is no room."""
        return RequestRefused(
            ErrorCode.MEMORY_EXHAUSTED,
            f"The requests being read take all of the {self._max_bytes()} bytes they may take "
            "together; send the event again, or raise http.max_memory_bytes.",
            details={"max_bytes": self._max_bytes()},
            retry_after_seconds=RETRY_SECONDS,
        )


class MemoryShare:
    """What one request holds of the budget; given back by :meth:`release`."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.held_bytes = 0
        self.unread_bytes = 0

    def take(self, number: int) -> bool:
        """Hold ``number`` bytes more; False if there is no room for them."""
        taken = self._budget.take(number)
        if taken:
            self.held_bytes += number
        return taken

    def take_unread(self, number: int) -> bool:
        """Hold ``number`` bytes more, or fewer if it is negative; False if there is no room.

        The first ``FREE_BYTES`` of them count nowhere.
        """
        unread_bytes = max(0, self.unread_bytes + number)
        counted = max(0, unread_bytes - FREE_BYTES) - max(0, self.unread_bytes - FREE_BYTES)
        if counted and not self.take(counted):
            return False
        self.unread_bytes = unread_bytes
        return True

    def take_event(self, event: Event) -> None:
        """Hold what ``event`` takes until it is in the store.

        Raises:
            RequestRefused: ``memory_exhausted``.
        """
        if not self.take(text_bytes(event) + _MESSAGE_BYTES * len(event.messages)):
            raise self._budget.exhausted()

    def exhausted(self) -> RequestRefused:
        """Return what the request is told if there is no room for it."""
        return self._budget.exhausted()

    def unread(self) -> RequestRefused:
        """Return what the client is told that has left too much unread."""
        return self._budget.unread()

    def release(self) -> None:
        """Give everything back."""
        self._budget.take(-self.held_bytes)
        self.held_bytes = self.unread_bytes = 0
