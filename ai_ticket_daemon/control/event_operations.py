"""What an operator can ask for about events: look at them, retry, cancel or purge them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.control.arguments import Bulk, ByEvent, Listing
from ai_ticket_daemon.control.fields import fields_of
from ai_ticket_daemon.control.operation import Access, Answer, Operation
from ai_ticket_daemon.control.why import explain
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import FINAL_STATES, EventState
from ai_ticket_daemon.store.port import EventFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.control.fields import Timed
    from ai_ticket_daemon.control.history import PoolHistory
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.store.port import EventRecord, EventStore, EventSummary

_FITTING = {
    # action: the states of the events it can be applied to
    "retry": frozenset({EventState.FAILED}),
    "cancel": frozenset({EventState.QUEUED, EventState.RUNNING}),
    "purge": FINAL_STATES,
}


class EventOperations:
    """Carries out what is asked about events.

    Args:
        store: has them.
        pipeline: retries and cancels them.
        history: knows what happened to the servers meanwhile.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pipeline: AsyncInferencePipeline,
        history: PoolHistory,
        clock: Clock,
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._history = history
        self._clock = clock

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be asked for."""
        return (
            Operation("events", Access.LOOK, Listing, self._events),
            Operation("event", Access.LOOK, ByEvent, self._event),
            Operation("why", Access.LOOK, ByEvent, self._why),
            Operation("retry", Access.ACT, ByEvent, self._retry),
            Operation("cancel", Access.ACT, ByEvent, self._cancel),
            Operation("bulk", Access.ACT, Bulk, self._bulk),
        )

    async def _events(self, wanted: Listing) -> object:
        page = await self._store.page(self._filter(wanted), below=wanted.below, limit=wanted.limit)
        return {"events": [self._shown(event) for event in page.events], "below": page.below}

    async def _event(self, wanted: ByEvent) -> object:
        record, summary = await self._find(wanted.event_id)
        return _whole(record, summary, self._shown)

    async def _why(self, wanted: ByEvent) -> object:
        record, summary = await self._find(wanted.event_id)
        now = self._clock.now()
        meanwhile = await self._history.between(record.event.submitted_at, summary.ended_at or now)
        lines = explain(record, summary, meanwhile, now, self._pipeline.admission.why_held)
        return {
            "event_id": record.event.event_id,
            "state": record.state.value,
            "lines": [self._shown(line) for line in lines],
        }

    async def _retry(self, wanted: ByEvent) -> object:
        await self._find(wanted.event_id)
        changed = await self._change("retry", [wanted.event_id])
        return Answer(await self._event(wanted), "done" if changed else "unchanged")

    async def _cancel(self, wanted: ByEvent) -> object:
        await self._find(wanted.event_id)
        changed = await self._change("cancel", [wanted.event_id])
        return Answer(await self._event(wanted), "done" if changed else "unchanged")

    async def _bulk(self, wanted: Bulk) -> object:
        asked = self._filter(wanted)
        fitting = _FITTING[wanted.action]
        states = asked.states & fitting if asked.states else fitting
        if not states:
            raise RequestRefused(
                ErrorCode.INVALID_PARAMETER,
                f"{wanted.action} is for events that are {' or '.join(sorted(fitting))}.",
            )
        page = await self._store.page(
            replace(asked, states=states), below=wanted.below, limit=wanted.limit
        )
        event_ids = [event.event_id for event in page.events]
        changed = await self._change(wanted.action, event_ids) if wanted.apply else 0
        told = {"event_ids": event_ids, "changed": changed, "below": page.below}
        if not wanted.apply:
            return Answer(told, "counted")
        return Answer(told, "done" if changed == len(event_ids) else "partly")

    async def _change(self, action: str, event_ids: list[str]) -> int:
        """Do it to all of them at once, so that they share their writes to the disk."""
        if action == "purge":
            return await self._store.forget(event_ids)
        pipeline = self._pipeline
        call = pipeline.retry if action == "retry" else pipeline.cancel
        reached = EventState.QUEUED if action == "retry" else EventState.CANCELLED
        changed = 0

        async def change(event_id: str) -> None:
            nonlocal changed
            status = await call(event_id)
            changed += status is not None and status.state is reached

        async with trio.open_nursery() as nursery:
            for event_id in event_ids:
                nursery.start_soon(change, event_id)
        return changed

    async def _find(self, event_id: str) -> tuple[EventRecord, EventSummary]:
        record = await self._store.get(event_id)
        page = await self._store.page(EventFilter(event_id=event_id), below=None, limit=1)
        if record is None or not page.events:
            raise RequestRefused(ErrorCode.EVENT_NOT_FOUND, f"No event {event_id} is known.")
        return record, page.events[0]

    def _filter(self, wanted: Listing) -> EventFilter:
        try:
            return wanted.filter(self._clock.now())
        except ValueError as error:
            raise RequestRefused(
                ErrorCode.INVALID_PARAMETER, f"state: {error}; there are {', '.join(EventState)}."
            ) from error

    def _shown(self, what: Timed) -> dict[str, Any]:
        return fields_of(what, self._clock.ahead)


def _whole(
    record: EventRecord, summary: EventSummary, shown: Callable[[Timed], dict[str, Any]]
) -> dict[str, Any]:
    """Return what is known of an event, but not what it is about: that is its client's business."""
    event, outcome = record.event, record.outcome
    failure = None
    if isinstance(outcome, Failed):
        failure = {"error": outcome.code, "message": outcome.message, "details": outcome.details}
    return shown(summary) | {
        "position": record.position,
        "client": event.client,
        "stream": event.stream,
        "max_tokens": event.sampling.max_tokens,
        "reasoning": event.reasoning,
        "reasoning_effort": event.reasoning_effort,
        "idempotency_key": event.idempotency_key is not None,
        "trace_context": dict(event.trace_context),
        "attempts": [shown(attempt) for attempt in record.attempts],
        "failure": failure,
        "usage": None if outcome is None or failure else asdict(outcome)["usage"],
    }
