"""The life of one event as a time line in plain words; a pure function of what is on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.events.outcome import Failed, Succeeded, Waste
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.pipeline.turns import Waited
from ai_ticket_daemon.server.client_address import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ai_ticket_daemon.events.outcome import Attempt
    from ai_ticket_daemon.store.port import Change, EventRecord, EventSummary


@dataclass(frozen=True, slots=True)
class Line:
    """What happened ``at`` (seconds since the Unix epoch), in plain words.

    ``name`` is that of the event on the span ``pipeline.handle_event``, where there is one.
    """

    at: float
    text: str
    name: str


def explain(
    record: EventRecord,
    summary: EventSummary,
    changes: Iterable[Change],
    now: float,
    held: str | None = None,
) -> list[Line]:
    """Return what happened to an event and around it, the oldest first.

    Args:
        record: the event, its attempts and its outcome.
        summary: its times, and how many were ahead of it.
        changes: what happened to the backends and the daemon meanwhile.
        now: seconds since the Unix epoch.
        held: what keeps queued events from being started, if anything does.
    """
    around = (Line(change.at, change.text, "server") for change in changes)
    return sorted([*_life(record, summary, now, held), *around], key=lambda line: line.at)


def _life(
    record: EventRecord, summary: EventSummary, now: float, held: str | None
) -> Iterator[Line]:
    event = record.event
    ahead = _count(summary.ahead, "event") + " ahead" if summary.ahead else "nothing ahead"
    by = f" from {event.owner}" if event.owner else ""
    by += f" at {event.client}" if event.client not in (None, LOCAL) else ""
    told = f"accepted{by} with priority {event.priority}, {ahead}"
    yield Line(event.submitted_at, told, "accepted")
    before: Attempt | None = None
    for number, attempt in enumerate(record.attempts, start=1):
        since = event.submitted_at if before is None else before.ended_at
        # A daemon that was started meanwhile has not seen those it waited behind.
        behind = attempt.behind or (before is None and summary.ahead) or 0
        overtaken = attempt.overtaken - (0 if before is None else before.overtaken)
        waited = Waited(attempt.started_at - since, behind, attempt.ahead_of, overtaken)
        yield from _beginning(number, attempt, before, waited)
        yield from _end_of(number, attempt)
        before = attempt
    yield from _present(record, summary, now, held)
    if record.outcome is not None:
        ended_at = summary.ended_at or event.submitted_at
        yield Line(ended_at, _end(record), "ended")


def _beginning(
    number: int, attempt: Attempt, before: Attempt | None, waited: Waited
) -> Iterator[Line]:
    at = attempt.started_at
    if waited:
        behind = f" behind {waited.behind}" if waited.behind else ""
        yield Line(at, f"waited {seconds(waited.seconds)}{behind}", "waited")
    if waited.overtaken:
        yield Line(at, _overtaken(waited.overtaken), "overtaken")
    if waited.ahead_of:
        others = _count(waited.ahead_of, "event")
        told = (
            f"taken ahead of {others}: {attempt.backend} had just read what its prompt begins with"
        )
        yield Line(at, told, "taken_ahead")
    if before is not None and before.backend != attempt.backend:
        yield Line(at, f"switched from {before.backend} to {attempt.backend}", "switched")
    yield Line(at, f"attempt {number} went to {attempt.backend}", "attempt_started")


def _end_of(number: int, attempt: Attempt) -> Iterator[Line]:
    at, took = attempt.ended_at, seconds(attempt.seconds)
    because = attempt.because or ""
    if attempt.error is None:
        yield Line(at, f"attempt {number} gave the completion after {took}", "attempt_succeeded")
    elif attempt.waste is Waste.DAEMON_DIED:
        yield Line(at, f"attempt {number} was cut off: {attempt.message}", "put_back")
    elif attempt.is_busy:
        yield Line(at, f"{attempt.backend} was busy with others for {took}", "busy")
    else:
        lost = "; the backend was lost under it" if attempt.backend_died else ""
        over = "; another backend is preferred from here on" if attempt.elsewhere else ""
        how = f"{attempt.error.value}: {attempt.message}{lost}{over}"
        told = f"attempt {number} failed after {took}{_made(attempt)}: {how}"
        yield Line(at, told, "attempt_failed")
    if attempt.retried is False:
        yield Line(at, f"no further attempt: {because}", "given_up")
    elif attempt.waste is Waste.DAEMON_STOPPED:
        yield Line(at, f"put back in the queue: {because}", "put_back")
    elif attempt.retried and attempt.waste is None:
        yield Line(at, f"another attempt: {because}", "retry_scheduled")


def _overtaken(events: int) -> str:
    if events == 1:
        told, begins = "1 event was taken ahead of it", "its prompt begins"
    else:
        told, begins = f"{events} events were taken ahead of it", "their prompts begin"
    return f"{told}: the backend had just read what {begins} with"


def _made(attempt: Attempt) -> str:
    match attempt.tokens:
        case None:
            return " and nobody knows how many tokens"
        case 0:
            return ""
        case tokens:
            about = "about " if attempt.tokens_estimated else ""
            return f" and {about}{_count(tokens, 'token')}"


def _present(
    record: EventRecord, summary: EventSummary, now: float, held: str | None
) -> Iterator[Line]:
    if record.state is EventState.RUNNING and summary.claimed_at is not None:
        waited = summary.claimed_at - record.event.submitted_at
        behind = f" behind {summary.ahead}" if summary.ahead and not record.attempts else ""
        number = len(record.attempts) + 1
        told = f"attempt {number} went to {summary.backend} {seconds(waited)} after the submission"
        yield Line(summary.claimed_at, told + behind, "attempt_started")
        running = f"it has been running there for {seconds(now - summary.claimed_at)}"
        yield Line(now, running, "running")
    overtaken = summary.overtaken - (record.attempts[-1].overtaken if record.attempts else 0)
    if overtaken > 0:
        claimed_at = summary.claimed_at if record.state is EventState.RUNNING else None
        yield Line(summary.ended_at or claimed_at or now, _overtaken(overtaken), "overtaken")
    if record.state is EventState.QUEUED:
        later = f", not before {seconds(summary.due_at - now)} from now"
        left = record.event.deadline_at - now
        because = "" if held is None else f", held ({held})"
        told = (
            f"it waits in place {record.position}{later if summary.due_at > now else ''}{because}; "
            f"{seconds(left)} are left before its deadline"
        )
        yield Line(now, told, "queued")


def _end(record: EventRecord) -> str:
    outcome, state = record.outcome, record.state.value
    if isinstance(outcome, Succeeded):
        usage = outcome.usage
        about = "about " if usage.estimated else ""
        made = _count(usage.completion_tokens, "token")
        return f"{state} on {outcome.backend}: {about}{made} in {seconds(outcome.duration_seconds)}"
    assert isinstance(outcome, Failed)  # noqa: S101 - the only other outcome there is
    return f"{state}: {outcome.code.value}: {outcome.message}"


def seconds(value: float) -> str:
    """Return a duration as a person would say it."""
    if value < 1:
        return f"{max(0, round(value * 1000))} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _count(number: int | None, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
