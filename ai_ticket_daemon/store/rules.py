"""The rules that every store keeps alike, as plain functions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.outcome import Attempt, Failed, Waste
from ai_ticket_daemon.store.port import Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.events.event import Event

ORPHANED = "The part of the daemon that ran the attempt had crashed; it was put back."


def check_room(queued: int, more: int, max_queued: int) -> None:
    """Refuse ``more`` events if they would exceed what may wait.

    Raises:
        RequestRefused: ``queue_full``, or ``batch_too_large``: not even an empty queue has room.
            Where nothing may wait at all, that is no fault of the batch.
    """
    if more > max_queued > 0:
        raise RequestRefused(
            ErrorCode.BATCH_TOO_LARGE,
            f"The batch brings {more} events and no more than {max_queued} may ever wait; "
            "send it in parts, or raise store.max_queued.",
            details={"max_queued": max_queued, "actual": more},
        )
    if more and queued + more > max_queued:
        raise RequestRefused(
            ErrorCode.QUEUE_FULL,
            f"{queued} events wait and {max_queued} may, so there is no room for {more} more; "
            "send them again later.",
            details={"queued": queued, "max_queued": max_queued},
            retry_after_seconds=5.0,
        )


def replay(event: Event, digest: bytes, event_id: str, known_digest: bytes | None) -> Receipt:
    """Return the receipt for an event whose idempotency key is known."""
    if digest == known_digest:
        return Receipt(event_id, replayed=True)
    refusal = RequestRefused(
        ErrorCode.IDEMPOTENCY_CONFLICT,
        "This idempotency key was used for another request; use a key of its own for each request.",
        details={"event_id": event_id},
    )
    return Receipt(event.event_id, refusal=refusal)


def expired_in_queue(
    event: Event, attempts: tuple[Attempt, ...], held: str | None = None
) -> Failed:
    """Return the outcome of an event whose deadline passed while it waited.

    ``held`` says what kept events from being started, if anything did.
    """
    given = event.given_seconds
    last = next((a for a in reversed(attempts) if a.error is not None), None)
    details = {} if last is None else {"last_error": last.error, "last_message": last.message}
    if held is None:
        message = (
            f"No backend was free within the {given:g} s this event had; allow it more time with "
            "timeout_seconds or add a backend."
        )
    else:
        message = f"The {given:g} s this event had are over and nothing is started: {held}."
        details["held"] = held
    return Failed(ErrorCode.DEADLINE_EXCEEDED, message, details or None, attempts=attempts)


def retried_event(event: Event, now: float) -> Event:
    """Return ``event`` with its deadline as far away as it was at first."""
    return structs.replace(event, deadline_at=now + event.given_seconds)


def lost_attempt(backend: str, started_at: float, now: float, *, because: str) -> Attempt:
    """Return the record of an attempt that nobody reported the end of."""
    return Attempt(
        backend,
        started_at,
        now,
        error=ErrorCode.INTERNAL_ERROR,
        message=because,
        waste=Waste.DAEMON_DIED,
        retried=True,
        because=because,
    )


def fresh(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Return ``attempts`` as a record only: none of them counts any more."""
    return tuple(replace(attempt, counted=False, backend_died=False) for attempt in attempts)
