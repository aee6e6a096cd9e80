"""The life of an event: its states and the one function that moves it between them.

submit ─▶ queued ─▶ running ─▶ succeeded
            ▲  │       │ ├──▶ failed
            │  │       │ └──▶ queued      (retry, backend lost, drain)
            │  ├───────┴────▶ cancelled
            │  └────────────▶ expired
            └─ failed (retried by the operator)
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class EventState(StrEnum):
    """Where an event stands."""

    QUEUED = "queued"
    """Waits for a backend, or for its time to be tried again."""
    RUNNING = "running"
    """A worker holds it."""
    SUCCEEDED = "succeeded"
    """Has its completion."""
    FAILED = "failed"
    """Final error, or attempts used up."""
    CANCELLED = "cancelled"
    """The client or an operator did not want it any more."""
    EXPIRED = "expired"
    """Its deadline passed before there was a result."""


FINAL_STATES = frozenset(
    {EventState.SUCCEEDED, EventState.FAILED, EventState.CANCELLED, EventState.EXPIRED}
)

_ALLOWED: Mapping[EventState, frozenset[EventState]] = MappingProxyType(
    {
        EventState.QUEUED: frozenset(
            {EventState.RUNNING, EventState.CANCELLED, EventState.EXPIRED}
        ),
        EventState.RUNNING: frozenset(EventState) - {EventState.RUNNING},
        EventState.SUCCEEDED: frozenset(),
        EventState.FAILED: frozenset({EventState.QUEUED}),
        EventState.CANCELLED: frozenset(),
        EventState.EXPIRED: frozenset(),
    }
)


def transition(current: EventState, target: EventState) -> EventState:
    """Return ``target`` if an event may go there from ``current``.

    Raises:
        ValueError: the life of an event has no such step.
    """
    if target not in _ALLOWED[current]:
        raise ValueError(f"an event cannot go from {current} to {target}")
    return target
