"""The life of one event as a time line in plain words; a pure function of what is on record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.control.history import Change
from ai_ticket_daemon.events.outcome import Failed, Succeeded
from ai_ticket_daemon.events.state import EventState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ai_ticket_daemon.events.outcome import Attempt
    from ai_ticket_daemon.store.port import EventRecord, EventSummary

NOTICEABLE_SECONDS = 0.05
"""Shorter waits are not worth a word."""


def explain(
    record: EventRecord, summary: EventSummary, changes: Iterable[Change], now: float
) -> list[Change]:
    """Return what happened to an event and around it, the oldest first.

    Args:
        record: the event, its attempts and its outcome.
        summary: its times, and how many were ahead of it.
        changes: what happened to the backends meanwhile.
        now: seconds since the Unix epoch.
    """
    lines = [*_life(record, summary, now), *changes]
    return sorted(lines, key=lambda line: line.at)


def _life(record: EventRecord, summary: EventSummary, now: float) -> Iterator[Change]:
    event = record.event
    ahead = _count(summary.ahead, "event") + " ahead" if summary.ahead else "nothing ahead"
    by = f" from {event.owner}" if event.owner else ""
    yield Change(event.submitted_at, f"accepted{by} with priority {event.priority}, {ahead}")
    free_since = event.submitted_at
    for number, attempt in enumerate(record.attempts, start=1):
        waited = attempt.started_at - free_since
        after = f" after waiting {seconds(waited)}" if waited >= NOTICEABLE_SECONDS else ""
        if after and number == 1 and summary.ahead:
            after += f" behind {summary.ahead}"
        yield Change(attempt.started_at, f"attempt {number} went to {attempt.backend}{after}")
        yield Change(attempt.ended_at, f"attempt {number} {_how(attempt)}")
        free_since = attempt.ended_at
    yield from _present(record, summary, now)
    if record.outcome is not None:
        yield Change(summary.ended_at or free_since, _end(record))


def _present(record: EventRecord, summary: EventSummary, now: float) -> Iterator[Change]:
    if record.state is EventState.RUNNING and summary.claimed_at is not None:
        waited = summary.claimed_at - record.event.submitted_at
        behind = f" behind {summary.ahead}" if summary.ahead and not record.attempts else ""
        yield Change(
            summary.claimed_at,
            f"attempt {len(record.attempts) + 1} went to {summary.backend} {seconds(waited)} after "
            f"the submission{behind}",
        )
        yield Change(now, f"it has been running there for {seconds(now - summary.claimed_at)}")
    if record.state is EventState.QUEUED:
        later = f", not before {seconds(summary.due_at - now)} from now"
        left = record.event.deadline_at - now
        yield Change(
            now,
            f"it waits in place {record.position}{later if summary.due_at > now else ''}; "
            f"{seconds(left)} are left before its deadline",
        )


def _how(attempt: Attempt) -> str:
    took = seconds(attempt.ended_at - attempt.started_at)
    if attempt.error is None:
        return f"gave the completion after {took}"
    free = "" if attempt.counted else " (does not count as an attempt)"
    lost = "; the backend was lost under it" if attempt.backend_died else ""
    over = "; another backend is preferred from here on" if attempt.elsewhere else ""
    return f"failed after {took}: {attempt.error.value}: {attempt.message}{lost}{over}{free}"


def _end(record: EventRecord) -> str:
    outcome = record.outcome
    total = f"{record.state.value}"
    if isinstance(outcome, Succeeded):
        usage = outcome.usage
        about = "about " if usage.estimated else ""
        made = _count(usage.completion_tokens, "token")
        return f"{total} on {outcome.backend}: {about}{made} in {seconds(outcome.duration_seconds)}"
    assert isinstance(outcome, Failed)  # noqa: S101 - the only other outcome there is
    reason = (outcome.details or {}).get("not_retried_because")
    because = f"; not tried again: {reason}" if reason else ""
    return f"{total}: {outcome.code.value}: {outcome.message}{because}"


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
