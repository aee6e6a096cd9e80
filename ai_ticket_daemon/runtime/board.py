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
    """

    def __init__(self, on_outcome: Callable[[Outcome], None] | None = None) -> None:
        self._pieces: list[str] = []
        self._outcome: Outcome | None = None
        self._changed = trio.Event()
        self._on_outcome = on_outcome

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
        self._watches: dict[str, Watch] = {}

    def watch(self, event_id: str, on_outcome: Callable[[Outcome], None] | None = None) -> Watch:
        """Start to watch an event, before it is submitted."""
        watch = self._watches[event_id] = Watch(on_outcome)
        return watch

    def unwatch(self, event_id: str) -> None:
        """Stop to watch an event; unknown ids are ignored."""
        self._watches.pop(event_id, None)

    def watched(self) -> tuple[str, ...]:
        """Return the ids of all events somebody watches."""
        return tuple(self._watches)

    def add_delta(self, event_id: str, text: str) -> None:
        """Pass a piece of a completion on to whoever watches the event."""
        watch = self._watches.get(event_id)
        if watch is not None:
            watch.add_delta(text)

    def end(self, event_id: str, outcome: Outcome) -> None:
        """Pass the outcome on, and forget the watch."""
        watch = self._watches.pop(event_id, None)
        if watch is not None:
            watch.end(outcome)
