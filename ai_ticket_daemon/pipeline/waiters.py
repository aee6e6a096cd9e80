"""Those who wait for events: each gets the text as it comes, and then the outcome.

A waiter is a value to wait on, not a mailbox: a slow one never holds up the backend.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ai_ticket_daemon.events.event import without_text
from ai_ticket_daemon.events.outcome import Failed, Succeeded
from ai_ticket_daemon.events.reasoning import ReasoningText
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.events.status import EventStatus
    from ai_ticket_daemon.host.memory_budget import MemoryBudget, MemoryShare

_JOINED_PIECES = 256
"""This many waiting pieces are joined: a piece takes more memory than its few letters."""


class Waiter:
    """One party's view of one event: its text as it comes, and how it ended.

    Pieces that nobody has fetched yet are kept. They count as memory of clients until they are
    written, and so does the completion until :meth:`release`. Where there is no room for them, the
    party gets an error in place of the outcome; the event goes on, and the store has its
    completion.

    Args:
        on_outcome: is called with the outcome.
        delays_stop: whether a daemon that stops still runs the event for this party.
    """

    def __init__(
        self, on_outcome: Callable[[Outcome], None] | None = None, *, delays_stop: bool = True
    ) -> None:
        self._runs: deque[_Run] = deque()
        self._outcome: Outcome | None = None
        self._changed = trio.Event()
        self._on_outcome = on_outcome
        self.delays_stop = delays_stop
        self._memory: MemoryShare | None = None

    def count_in(self, memory: MemoryShare) -> None:
        """Count from now on what is not read yet."""
        self._memory = memory

    def release(self) -> None:
        """Give back the memory that was counted: nothing is kept any more."""
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
        """Yield the text in the pieces it came in, or several joined if the reader is slow.

        What the model thinks comes as :class:`ReasoningText`.
        """
        while True:
            if self._runs:
                run = self._runs.popleft()
                yield run.text()
                if self._memory is not None:  # it is written by now
                    self._memory.take_unread(-run.size_bytes)
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
        is_thinking = isinstance(text, ReasoningText)
        if not self._runs or self._runs[-1].is_thinking is not is_thinking:
            self._runs.append(_Run(is_thinking))
        self._runs[-1].add(text)
        self._wake()

    def end(self, outcome: Outcome) -> None:
        """Tell how the event ended."""
        if self._outcome is not None:
            return
        if isinstance(outcome, Failed) or self._has_room(outcome.text, outcome.reasoning or ""):
            self._finish(outcome)

    def _has_room(self, *texts: str) -> bool:
        """Count ``texts``; if there is no room for them, drop what waits, end with that error."""
        if self._memory is None or self._memory.take_unread(sum(map(_size_bytes, texts))):
            return True
        self._runs.clear()
        self._finish(Failed.from_error(self._memory.unread()))
        return False

    def _finish(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._wake()
        if self._on_outcome is not None:
            self._on_outcome(outcome)


class Waiters:
    """All who wait, by event. An event that nobody waits for costs nothing here.

    Args:
        memory: bounds what all of them have not read yet; None for no bound.
    """

    def __init__(self, memory: MemoryBudget | None = None) -> None:
        self._waiters: dict[str, list[Waiter]] = {}
        self._memory = memory
        self._left = Wakeup()

    def add(self, event_id: str, waiter: Waiter) -> Waiter:
        """Let ``waiter`` see the event from now on."""
        if self._memory is not None:
            waiter.count_in(self._memory.share())
        self._waiters.setdefault(event_id, []).append(waiter)
        return waiter

    def remove(self, event_id: str, waiter: Waiter) -> bool:
        """Let ``waiter`` see no more; return whether nobody waits for the event any more."""
        waiter.release()
        waiters = self._waiters.get(event_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(event_id, None)
        self._left.notify()
        return not waiters

    def event_ids(self) -> tuple[str, ...]:
        """Return the ids of all events that somebody waits for."""
        return tuple(self._waiters)

    @property
    def delay_stop(self) -> bool:
        """Whether anybody waits for whom the daemon should go on."""
        return any(waiter.delays_stop for waiters in self._waiters.values() for waiter in waiters)

    async def until_none_delays_stop(self) -> None:
        """Return as soon as nobody waits for whom the daemon should go on."""
        while True:
            seen = self._left.version
            if not self.delay_stop:
                return
            await self._left.wait(seen)

    def add_delta(self, event_id: str, text: str) -> None:
        """Pass a piece of a completion on to all who wait for the event."""
        for waiter in self._waiters.get(event_id, ()):
            waiter.add_delta(text)

    def end(self, event_id: str, outcome: Outcome) -> None:
        """Pass the outcome on, and forget who waited for it."""
        for waiter in self._waiters.get(event_id, ()):
            waiter.end(outcome)
        self._waiters.pop(event_id, None)
        self._left.notify()


class Submission:
    """One party that waits for an event. Ends with :meth:`release` or :meth:`abandon`.

    Args:
        status: how the event stood when the waiting began; its text is not kept.
        waiter: sees the event.
        replayed: whether it had been submitted before, under the same idempotency key.
        stop: ends the waiting; its second argument says whether the event is unwanted now.
    """

    def __init__(
        self,
        status: EventStatus,
        waiter: Waiter,
        *,
        replayed: bool,
        stop: Callable[[Submission, bool], None],
    ) -> None:
        self.event_id = status.event.event_id
        self.status = replace(status, event=without_text(status.event))
        self.waiter = waiter
        self.replayed = replayed
        self._stop = stop

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how.

        ``draining`` says that the daemon stops; the event itself goes on after its restart.
        """
        return await self.waiter.outcome()

    def deltas(self) -> AsyncIterator[str]:
        """Yield the completion in pieces as they come; ends when the event has ended.

        A party that joins an event which was submitted before has missed its first pieces, and
        gets the whole text at its end.
        """
        # No generator around a generator: closing the outer one would leave the inner one open.
        return self._whole_text() if self.replayed else self.waiter.deltas()

    async def _whole_text(self) -> AsyncIterator[str]:
        outcome = await self.waiter.outcome()
        if isinstance(outcome, Succeeded):
            if outcome.reasoning:
                yield ReasoningText(outcome.reasoning)
            yield outcome.text

    def release(self) -> None:
        """Stop waiting; the event goes on. Harmless once ended."""
        self._stop(self, False)

    def abandon(self) -> None:
        """The result is not wanted any more. Harmless once ended.

        Cancels the event and frees its slot, unless somebody else waits for it or its submitter
        can come back for it, having given it an idempotency key.
        """
        self._stop(self, True)


class _Run:
    """Pieces in a row of the answer, or of the thinking, that nobody has fetched yet."""

    __slots__ = ("_joined", "_pieces", "is_thinking", "size_bytes")

    def __init__(self, is_thinking: bool) -> None:
        self.is_thinking = is_thinking
        self.size_bytes = 0
        self._pieces: list[str] = []
        self._joined: list[str] = []

    def add(self, text: str) -> None:
        self.size_bytes += _size_bytes(text)
        self._pieces.append(text)
        if len(self._pieces) >= _JOINED_PIECES:
            self._joined.append("".join(self._pieces))
            self._pieces.clear()

    def text(self) -> str:
        text = "".join([*self._joined, *self._pieces])
        return ReasoningText(text) if self.is_thinking else text


def _size_bytes(text: str) -> int:
    """Return what a text takes that is not written yet: as it is, and as the bytes made of it."""
    return 2 * sys.getsizeof(text)
