"""An accepted event, as whoever waits for it sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.event import without_text
from ai_ticket_daemon.events.outcome import Succeeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.events.status import EventStatus
    from ai_ticket_daemon.pipeline.waiters import Watch


class Submission:
    """One party that waits for an event. Ends with :meth:`release` or :meth:`abandon`.

    Args:
        status: how the event stood when the waiting began; its text is not kept.
        watch: sees the event.
        replayed: it had been submitted before, under the same idempotency key.
        stop: ends the waiting; told whether the event is unwanted now.
    """

    def __init__(
        self,
        status: EventStatus,
        watch: Watch,
        *,
        replayed: bool,
        stop: Callable[[Submission, bool], None],
    ) -> None:
        self.event_id = status.event.event_id
        self.status = replace(status, event=without_text(status.event))
        self.watch = watch
        self.replayed = replayed
        self._stop = stop

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how.

        ``draining`` says that the daemon stops; the event itself goes on after its restart.
        """
        return await self.watch.outcome()

    def deltas(self) -> AsyncIterator[str]:
        """Yield the completion in pieces as they come; ends when the event has ended.

        Who joins an event that was submitted before has missed its first pieces, and is given the
        whole text at its end.
        """
        # No generator around a generator: whoever closes the outer one would leave the inner open.
        return self._whole_text() if self.replayed else self.watch.deltas()

    async def _whole_text(self) -> AsyncIterator[str]:
        outcome = await self.watch.outcome()
        if isinstance(outcome, Succeeded):
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
