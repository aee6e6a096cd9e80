"""Where whoever waits for an event meets its outcome; a value to wait on, not a mailbox."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.outcome import Failed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.memory import MemoryBudget, MemoryShare

_JOINED_PIECES = 256
"""So many pieces that wait are joined: each takes more than the few letters it holds."""


class Watch:
    """One party's view of one event: its text as it comes, and how it ended.

    Pieces that nobody has fetched yet are kept, so that a slow reader never holds up the backend.
    They count as memory of clients until they are written, and so does the completion until
    :meth:`release`. Where there is no room for them, the party is told so in place of the outcome;
    the event goes on, and the store has its completion.

    ``holds_up`` tells whether the daemon, when it stops, should still run the event for this party.
    """

    def __init__(
        self, on_outcome: Callable[[Outcome], None] | None = None, *, holds_up: bool = True
    ) -> None:
        self._pieces: list[str] = []
        self._outcome: Outcome | None = None
        self._changed = trio.Event()
        self._on_outcome = on_outcome
        self.holds_up = holds_up
        self._joined: list[str] = []
        self._waiting_bytes = 0
        self._memory: MemoryShare | None = None

    def count_in(self, memory: MemoryShare) -> None:
        """Count from now on what is not read yet."""
        self._memory = memory

    def release(self) -> None:
        """Nothing of it is kept any more."""
        if self._memory is not None:
            self._memory.release()

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how."""
        while self._outcome is None:
            await self._changed.wait()
        return self._outcome

    async def deltas(self) -> AsyncGenerator[str]:
        """Yield the text in the pieces it came in, or several joined if the reader is slow."""
        while True:
            if self._pieces or self._joined:
                text = "".join([*self._joined, *self._pieces])
                self._joined.clear()
                self._pieces.clear()
                size_bytes, self._waiting_bytes = self._waiting_bytes, 0
                yield text
                if self._memory is not None:  # it is written by now
                    self._memory.take_unread(-size_bytes)
            elif self._outcome is not None:
                return
            else:
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        if self._outcome is None:
            self._changed = trio.Event()

    def add_delta(self, text: str) -> None:
        """Append a piece of the completion."""
        if self._outcome is not None:
            return
        if not self._has_room(text):
            return
        self._waiting_bytes += _size_bytes(text)
        self._pieces.append(text)
        if len(self._pieces) >= _JOINED_PIECES:
            self._joined.append("".join(self._pieces))
            self._pieces.clear()
        self._wake()

    def end(self, outcome: Outcome) -> None:
        """Tell how the event ended."""
        if self._outcome is not None:
            return
        if isinstance(outcome, Failed) or self._has_room(outcome.text):
            self._finish(outcome)

    def _has_room(self, text: str) -> bool:
        """Count ``text``; if there is no room for it, drop what waits and tell so as the end."""
        if self._memory is None or self._memory.take_unread(_size_bytes(text)):
            return True
        self._pieces.clear()
        self._joined.clear()
        self._finish(Failed.from_error(self._memory.unread()))
        return False

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._wake()
        if self._on_outcome is not None:
            self._on_outcome(outcome)


class Board:
    """Knows who watches which event. Events nobody watches cost nothing here.

    Args:
        memory: bounds what all who watch have not read yet; None for no bound.
    """

    def __init__(self, memory: MemoryBudget | None = None) -> None:
        self._watches: dict[str, list[Watch]] = {}
        self._memory = memory

    def watch(self, event_id: str, watch: Watch) -> Watch:
        """Let ``watch`` see the event from now on."""
        if self._memory is not None:
            watch.count_in(self._memory.share())
        self._watches.setdefault(event_id, []).append(watch)
        return watch

    def unwatch(self, event_id: str, watch: Watch) -> bool:
        """Stop watching; return whether nobody watches the event any more."""
        watch.release()
        watches = self._watches.get(event_id, [])
        if watch in watches:
            watches.remove(watch)
        if not watches:
            self._watches.pop(event_id, None)
        return not watches

    def watched(self) -> tuple[str, ...]:
        """Return the ids of all events somebody watches."""
        return tuple(self._watches)

    @property
    def holds_up(self) -> bool:
        """Whether anybody waits for whom the daemon should go on."""
        return any(watch.holds_up for watches in self._watches.values() for watch in watches)

    def add_delta(self, event_id: str, text: str) -> None:
        """Pass a piece of a completion on to whoever watches the event."""
        for watch in self._watches.get(event_id, ()):
            watch.add_delta(text)

    def end(self, event_id: str, outcome: Outcome) -> None:
        """Pass the outcome on, and forget who watched."""
        for watch in self._watches.get(event_id, ()):
            watch.end(outcome)
        self._watches.pop(event_id, None)


def _size_bytes(text: str) -> int:
    """Return what a text takes that is not written yet: as it is, and as the bytes made of it."""
    return 2 * sys.getsizeof(text)
