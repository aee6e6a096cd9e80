"""A pipeline that does what a test tells it, and keeps to the protocol of the real one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import payload_digest
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded, Usage
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.events.status import EventStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from ai_ticket_daemon.errors import TicketError
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome

GUARD_SECONDS = 60.0
"""How long anything may take before a test counts as hanging."""


def succeeded(text: str = "done") -> Succeeded:
    """Return the outcome of an event that went well."""
    return Succeeded(
        text=text,
        backend="primary",
        finish_reason="stop",
        usage=Usage(3, 2),
        duration_seconds=0.5,
        attempts=(Attempt("primary", 1.0, 1.5),),
    )


class ScriptedEvent:
    """An event whose end the test decides."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.state = EventState.QUEUED
        self.result: Outcome | None = None
        self.crash: Exception | None = None
        self.ended = trio.Event()
        self.send, self.receive = trio.open_memory_channel[str](math.inf)

    def status(self) -> EventStatus:
        """Return how it stands."""
        queued = self.state is EventState.QUEUED
        return EventStatus(
            self.event,
            self.state,
            () if self.result is None else self.result.attempts,
            self.result,
            3 if queued else None,
            1764096000.25 if queued else None,
        )

    def end(self, outcome: Outcome, state: EventState | None = None) -> None:
        """Have it end."""
        if self.ended.is_set():
            return
        well = isinstance(outcome, Succeeded)
        self.state = state or (EventState.SUCCEEDED if well else EventState.FAILED)
        self.result = outcome
        self.send.close()
        self.ended.set()


class ScriptedSubmission:
    """What a test sees of somebody who waits for an event, and how it decides its end."""

    def __init__(self, scripted: ScriptedEvent, *, replayed: bool = False) -> None:
        self.scripted = scripted
        self.status = scripted.status()
        self.replayed = replayed
        self.abandoned = trio.Event()
        self.released = trio.Event()

    @property
    def event(self) -> Event:
        """The event."""
        return self.scripted.event

    @property
    def event_id(self) -> str:
        """The id of the event."""
        return self.event.event_id

    def say(self, delta: str) -> None:
        """Have the backend make a piece of text."""
        self.scripted.send.send_nowait(delta)

    def end(self, outcome: Outcome) -> None:
        """Have the event end."""
        self.scripted.end(outcome)

    def fall_over(self, error: Exception) -> None:
        """Have whoever waits meet an error that nobody expects."""
        self.scripted.crash = error
        self.scripted.send.close()
        self.scripted.ended.set()

    async def outcome(self) -> Outcome:
        """Wait until the event has ended and return how."""
        await self.scripted.ended.wait()
        if self.scripted.crash is not None:
            raise self.scripted.crash
        assert self.scripted.result is not None
        return self.scripted.result

    async def deltas(self) -> AsyncIterator[str]:
        """Yield the completion in pieces as they come, or as one to who comes late."""
        if self.replayed:
            outcome = await self.outcome()
            if isinstance(outcome, Succeeded):
                yield outcome.text
            return
        async for delta in self.scripted.receive:
            yield delta

    def release(self) -> None:
        """Stop waiting."""
        self.released.set()

    def abandon(self) -> None:
        """Nobody wants the result any more."""
        self.abandoned.set()


class ScriptedPipeline:
    """Keeps what is submitted; answers at once, refuses, crashes, or leaves it to the test.

    ``answer`` None leaves the end of each event to the test. ``submissions`` holds whoever handed
    over or waits for an event, ``eager`` which events were to fail fast.
    """

    def __init__(self) -> None:
        self.answer: Outcome | None = succeeded()
        self.refusal: TicketError | None = None
        self.crash: Exception | None = None
        self.submissions: list[ScriptedSubmission] = []
        self.eager: dict[str, bool] = {}
        self.events: dict[str, ScriptedEvent] = {}
        self._keys: dict[tuple[str, str], ScriptedEvent] = {}
        self._arrived = trio.Event()

    async def submit(self, event: Event, *, fail_fast: bool = True) -> ScriptedSubmission:
        """Accept one event, or fail as told."""
        await self._fail_as_told()
        self.eager[event.event_id] = fail_fast
        accepted = self._accept(event)
        if isinstance(accepted, RequestRefused):
            raise accepted
        return accepted

    async def enqueue(self, events: Sequence[Event]) -> list[EventStatus | RequestRefused]:
        """Accept a batch, or fail as told."""
        await self._fail_as_told()
        accepted = [self._accept(event) for event in events]
        return [one if isinstance(one, RequestRefused) else one.status for one in accepted]

    async def iter_responses(
        self,
        events: Sequence[Event],
        *,
        earlier: dict[str, str] | None = None,
        on_accepted: Callable[[], None] | None = None,
    ) -> AsyncGenerator[tuple[str, Outcome], None]:
        """Accept a batch, or fail as told; yield each outcome when there is one."""
        await self._fail_as_told()
        waiting: dict[str, ScriptedSubmission] = {}
        for event in events:
            accepted = self._accept(event)
            if isinstance(accepted, RequestRefused):
                yield event.event_id, Failed.from_error(accepted)
            else:
                waiting[event.event_id] = accepted
                if accepted.replayed and earlier is not None:
                    earlier[event.event_id] = accepted.event_id
        if on_accepted is not None:
            on_accepted()
        try:
            while waiting:
                ended = [key for key, one in waiting.items() if one.scripted.ended.is_set()]
                for event_id in ended:
                    yield event_id, await waiting.pop(event_id).outcome()
                if not ended:
                    await self._any_end(list(waiting.values()))
        finally:
            for submission in waiting.values():
                submission.abandon()

    async def status(self, event_id: str) -> EventStatus | None:
        """Tell how an event stands, or fail as told."""
        await self._fail_as_told()
        scripted = self.events.get(event_id)
        return None if scripted is None else scripted.status()

    async def watch(self, event_id: str) -> ScriptedSubmission | None:
        """Wait for an event."""
        await trio.lowlevel.checkpoint()
        scripted = self.events.get(event_id)
        return None if scripted is None else self._keep(ScriptedSubmission(scripted))

    async def cancel(self, event_id: str) -> EventStatus | None:
        """Cancel an event."""
        await trio.lowlevel.checkpoint()
        scripted = self.events.get(event_id)
        if scripted is None:
            return None
        cancelled = Failed(ErrorCode.CANCELLED, "The event was cancelled.")
        scripted.end(cancelled, EventState.CANCELLED)
        return scripted.status()

    async def submission(self, number: int = 1) -> ScriptedSubmission:
        """Wait for whoever is the first, or so, to wait for an event, and return it."""
        with trio.fail_after(GUARD_SECONDS):
            while len(self.submissions) < number:
                await self._arrived.wait()
        return self.submissions[number - 1]

    async def _fail_as_told(self) -> None:
        await trio.lowlevel.checkpoint()
        for error in (self.refusal, self.crash):
            if error is not None:
                raise error

    def _accept(self, event: Event) -> ScriptedSubmission | RequestRefused:
        scripted = ScriptedEvent(event)
        first = scripted
        if event.idempotency_key is not None:
            first = self._keys.setdefault((event.owner, event.idempotency_key), scripted)
            if payload_digest(first.event) != payload_digest(event):
                return RequestRefused(ErrorCode.IDEMPOTENCY_CONFLICT, "Another payload.")
        if first is scripted:
            self.events[event.event_id] = scripted
        submission = ScriptedSubmission(first, replayed=first is not scripted)
        if self.answer is not None:
            first.end(self.answer)
        return self._keep(submission)

    def _keep(self, submission: ScriptedSubmission) -> ScriptedSubmission:
        self.submissions.append(submission)
        self._arrived.set()
        self._arrived = trio.Event()
        return submission

    async def _any_end(self, submissions: Sequence[ScriptedSubmission]) -> None:
        async with trio.open_nursery() as nursery:

            async def until_end(submission: ScriptedSubmission) -> None:
                await submission.scripted.ended.wait()
                nursery.cancel_scope.cancel()

            for submission in submissions:
                nursery.start_soon(until_end, submission)
