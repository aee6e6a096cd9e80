"""Writing down what came of an event: until it is written, or is somebody else's to write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.outcome import Attempt, Waste
from ai_ticket_daemon.events.state import EventState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.exhaustion import Exhaustion
    from ai_ticket_daemon.pipeline.in_flight import Run
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.waiters import Board
    from ai_ticket_daemon.store.port import EventStore

WRITE_AGAIN_SECONDS = 1.0
"""How long to leave a store alone that could not take an outcome; it is kept here meanwhile."""

WRITE_SECONDS = 20.0
"""How long one try to write an outcome may take before the worker counts as hung."""

LAST_WRITE_SECONDS = 10.0
"""How long the last try to write an outcome may take when the daemon stops."""

WHERE = "pipeline"


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


@dataclass(frozen=True, slots=True)
class OutcomeWriter:
    """Writes outcomes to the store, and tells whoever waits for them.

    ``now`` gives seconds since the Unix epoch.
    """

    store: EventStore
    board: Board
    observer: PipelineObserver
    now: Callable[[], float]
    exhaustion: Exhaustion

    async def write(self, run: Run, resolution: End | Requeue) -> None:
        """Write until it is written, or the lease is lost, or the daemon stops.

        Each try is shielded: one that is cut short may have been written or not.
        """
        written = _Written()
        try:
            while not run.lost or written.known is not None:
                run.beat(WRITE_AGAIN_SECONDS + WRITE_SECONDS)
                with trio.CancelScope(shield=True):
                    try:
                        await self._try_to_write(run, resolution, written)
                    except Exception as error:
                        if not self._passes(error):
                            raise
                    else:
                        return
                await trio.sleep(WRITE_AGAIN_SECONDS)
        except trio.Cancelled:
            with trio.CancelScope(shield=True), trio.move_on_after(LAST_WRITE_SECONDS):
                try:
                    await self._try_to_write(run, resolution, written)
                except Exception as error:
                    if not self._passes(error):
                        raise
                    self.observer.outcome_unwritten(run.lease.event)
                    self._waste(resolution, Waste.OUTCOME_UNWRITTEN)
            raise
        self._waste(resolution, run.lost)

    def _passes(self, error: Exception) -> bool:
        """Tell whether the next try to write may fare better."""
        # Of the first it is said once by the store itself.
        return isinstance(error, StoreUnavailable) or (
            self.exhaustion.meets(error, WHERE) is not None
        )

    async def _try_to_write(self, run: Run, resolution: End | Requeue, written: _Written) -> None:
        """Write, unless that was done before; then tell everybody."""
        event = run.lease.event
        if isinstance(resolution, Requeue):
            if written.known is None:
                due_at, attempts = resolution.due_at, resolution.attempts
                written.known = await self.store.release(
                    run.lease, due_at=due_at, attempts=attempts
                )
            run.requeued = written.known
        else:
            state, outcome = resolution.state, resolution.outcome
            if written.known is None:
                written.known = await self.store.complete(run.lease, state, outcome, self.now())
            if written.known:
                self.observer.ended(event, state, outcome)
                self.board.end(event.event_id, outcome)
        if not written.known:
            self.observer.outcome_refused(event)
            self._waste(resolution, Waste.LEASE_LOST)

    def _waste(self, resolution: End | Requeue, waste: Waste | None) -> None:
        """Tell that a completion nobody gets was thrown away; of others it has been told."""
        if isinstance(resolution, End) and resolution.state is EventState.SUCCEEDED:
            attempt = resolution.outcome.attempts[-1]
            self.observer.thrown_away(replace(attempt, waste=waste))
