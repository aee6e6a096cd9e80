"""Events, attempts and outcomes as bytes for the store: JSON, so that a person can read them."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ai_ticket_daemon.events.event import Event
from ai_ticket_daemon.events.outcome import Attempt, Failed, Outcome, Succeeded
from ai_ticket_daemon.events.state import EventState

encode = msgspec.json.encode

_decode_event = msgspec.json.Decoder(Event).decode
_decode_attempts = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_decode_succeeded = msgspec.json.Decoder(Succeeded).decode
_decode_failed = msgspec.json.Decoder(Failed).decode


def decode_event(data: bytes, deadline_at: float) -> Event:
    """Return the event that was encoded to ``data``, with the deadline it has now."""
    event = _decode_event(data)
    return event if event.deadline_at == deadline_at else replace(event, deadline_at=deadline_at)


def decode_attempts(data: bytes | None) -> tuple[Attempt, ...]:
    """Return the attempts that were encoded to ``data``; none for None."""
    return () if data is None else _decode_attempts(data)


def decode_outcome(state: EventState, data: bytes) -> Outcome:
    """Return the outcome of an event that ended in ``state``."""
    return _decode_succeeded(data) if state is EventState.SUCCEEDED else _decode_failed(data)
