"""The outcome writer: writes what came of an event, until it is written or the lease is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.outcome import Attempt, Waste
from ai_ticket_daemon.events.state import EventState

if TYPE_CHECKING:
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.pipeline.counters import Counters
    from ai_ticket_daemon.pipeline.in_flight import InFlight
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.queue import Queue
    from ai_ticket_daemon.pipeline.waiters import Waiters

WRITE_AGAIN_SECONDS = 1.0
"""How long to leave a store alone that could not take an outcome; it is kept here meanwhile."""

WRITE_SECONDS = 20.0
"""How long one try to write an outcome may take before the worker counts as hung."""

LAST_WRITE_SECONDS = 10.0
"""How long the last try to write an outcome may take when the daemon stops."""


@dataclass(slots=True)
class _Written:
    """Whether the store took it; None while that is not known."""

    known: bool | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The event ends like this."""

    state: EventState
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Requeue:
    """The event goes back to the queue, to be tried from ``due_at`` on."""

    due_at: float
    attempts: tuple[Attempt, ...]


class OutcomeWriter:
    """Writes outcomes to the store, and tells those who wait for them.

    Args:
        queue: takes them.
        waiters: are told of an outcome.
        counters: are told of events that ended and of what was made for nobody.
        observer: is told of the rest.
    """

    def __init__(
        self, queue: Queue, waiters: Waiters, counters: Counters, observer: PipelineObserver
    ) -> None:
        self._queue = queue
        self._waiters = waiters
        self._counters = counters
        self._observer = observer

    async def write(self, running: InFlight, resolution: End | Requeue) -> None:
        """Write until it is written, or the lease is lost, or the daemon stops.

        Each try is shielded: one that is cut short may have been written or not.
        """
        running.resolved = True
        running.requeues = isinstance(resolution, Requeue)
        written = _Written()
        try:
            while not running.lost or written.known is not None:
                running.beat(WRITE_AGAIN_SECONDS + WRITE_SECONDS)
                with trio.CancelScope(shield=True):
                    try:
                        await self._try_to_write(running, resolution, written)
                    except Exception as error:
                        if not self._queue.passes(error):
                            raise
                    else:
                        return
                await trio.sleep(WRITE_AGAIN_SECONDS)
        except trio.Cancelled:
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_WRITE_SECONDS):
                try:
                    await self._try_to_write(running, resolution, written)
                except Exception as error:
                    if not self._queue.passes(error):
                        raise
                    self._observer.outcome_unwritten(running.lease.event)
                    self._waste(resolution, Waste.OUTCOME_UNWRITTEN)
            raise
        self._waste(resolution, running.lost)

    async def _try_to_write(
        self, running: InFlight, resolution: End | Requeue, written: _Written
    ) -> None:
        """Write, unless that was done before; then tell all who are to know."""
        event = running.lease.event
        if isinstance(resolution, Requeue):
            if written.known is None:
                due_at, attempts = resolution.due_at, resolution.attempts
                written.known = await self._queue.store.release(
                    running.lease, due_at=due_at, attempts=attempts
                )
        else:
            state, outcome = resolution.state, resolution.outcome
            if written.known is None:
                written.known = await self._queue.store.complete(
                    running.lease, state, outcome, self._queue.now()
                )
            if written.known:
                self._counters.event_ended(event, state, outcome)
                self._waiters.end(event.event_id, outcome)
        if not written.known:
            self._observer.outcome_refused(event)
            self._waste(resolution, Waste.LEASE_LOST)

    def _waste(self, resolution: End | Requeue, waste: Waste | None) -> None:
        """Tell that a completion nobody gets was thrown away; of others it has been told."""
        if isinstance(resolution, End) and resolution.state is EventState.SUCCEEDED:
            attempt = resolution.outcome.attempts[-1]
            self._counters.thrown_away(replace(attempt, waste=waste))
