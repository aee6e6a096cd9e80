"""The fields of what is told, with its times as the calendar has them now."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_ticket_daemon.control.why import Line
    from ai_ticket_daemon.events.outcome import Attempt
    from ai_ticket_daemon.store.port import Change, EventSummary

    Timed = EventSummary | Attempt | Change | Line


def fields_of(what: Timed, ahead: float) -> dict[str, Any]:
    """Return the fields of something; the calendar is ``ahead`` of its times by so many seconds."""
    return {
        name: value + ahead if value and (name == "at" or name.endswith("_at")) else value
        for name, value in asdict(what).items()
    }
