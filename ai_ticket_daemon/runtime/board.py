"""Where whoever waits for an event meets its outcome; a value to wait on, not a mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ai_ticket_daemon.events.outcome import Outcome


class Watch:
    """One party's view of one event: its text as it comes, and how it ended.

    Pieces that nobody has fetched yet are kept joined; their size is bounded by the event's
    ``max_tokens``, so that a slow reader costs memory for one completion and never holds up the
    backend.

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

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how."""
        while self._outcome is None:
            await self._changed.wait()
        return self._outcome

    async def deltas(self) -> AsyncIterator[str]:
        """Yield the text in the pieces it came in, or several joined if the reader is slow."""
        while True:
            if self._pieces:
                text = "".join(self._pieces)
                self._pieces.clear()
                yield text
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
        self._pieces.append(text)
        self._wake()

    def end(self, outcome: Outcome) -> None:
        """Tell how the event ended."""
        self._outcome = outcome
        self._wake()
        if self._on_outcome is not None:
            self._on_outcome(outcome)


class Board:
    """Knows who watches which event. Events nobody watches cost nothing here."""

    def __init__(self) -> None:
        self._watches: dict[str, list[Watch]] = {}

    def watch(self, event_id: str, watch: Watch) -> Watch:
        """Let ``watch`` see the event from now on."""
        self._watches.setdefault(event_id, []).append(watch)
        return watch

    def unwatch(self, event_id: str, watch: Watch) -> bool:
        """Stop watching; return whether nobody watches the event any more."""
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
        for watch in self._watches.pop(event_id, ()):
            watch.end(outcome)
