"""Listeners that listen to nothing, for those who embed a part without telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.pool.backend import Backend, GuestReason
    from ai_ticket_daemon.pool.failover import ActiveRole
    from ai_ticket_daemon.pool.health import Health


class SilentPoolObserver:
    """Ignores what changes in the pool."""

    def health_changed(self, backend: Backend, before: Health) -> None:
        """Ignore it."""

    def restarted(self, backend: Backend) -> None:
        """Ignore it."""

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        """Ignore it."""

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        """Ignore it."""
