"""Remembers what happened to the backends, for whoever asks why an event took so long.

It stands between the pool and its observer: everything is passed on.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.health import HealthState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ai_ticket_daemon.backends.backend import Backend, GuestReason, PoolObserver
    from ai_ticket_daemon.backends.health import Health
    from ai_ticket_daemon.backends.switch import ActiveRole

REMEMBERED_CHANGES = 1000
"""Of the last ones; a restart forgets them, the journal does not."""

_WORKING = frozenset({HealthState.READY, HealthState.BUSY})


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened ``at`` (seconds since the Unix epoch), in plain words."""

    at: float
    text: str


class PoolHistory:
    """Notes the changes worth telling, and passes everything on to ``observer``."""

    def __init__(self, observer: PoolObserver, now: Callable[[], float] = time.time) -> None:
        self._observer = observer
        self._now = now
        self._changes: deque[Change] = deque(maxlen=REMEMBERED_CHANGES)

    def between(self, begin: float, end: float) -> Sequence[Change]:
        """Return what happened in that time, the oldest first."""
        return [change for change in self._changes if begin <= change.at <= end]

    def health_changed(self, backend: Backend, before: Health) -> None:
        """Note it, unless the server only became busy or free: that happens all day."""
        health = backend.health
        if not {health.state, before.state} <= _WORKING:
            reason = f": {health.reason}" if health.reason else ""
            self._note(f"{backend.name} became {health.state.value}{reason}")
        self._observer.health_changed(backend, before)

    def restarted(self, backend: Backend) -> None:
        """Note it."""
        self._note(f"{backend.name} was restarted")
        self._observer.restarted(backend)

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        """Note it."""
        if before.role is not after.role or before.pinned != after.pinned:
            self._note(f"{to_backend} serves from now on: {after.detail or after.reason.value}")
        self._observer.role_changed(before, after, from_backend=from_backend, to_backend=to_backend)

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        """Pass it on; the attempt itself tells where it was made."""
        self._observer.guest_sent(backend, reason)

    def _note(self, text: str) -> None:
        self._changes.append(Change(self._now(), text))
