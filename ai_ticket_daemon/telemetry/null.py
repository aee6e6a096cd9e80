"""Listeners that listen to nothing, for those who embed a part without telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.health import Health
    from ai_ticket_daemon.backends.pool import Backend
    from ai_ticket_daemon.backends.switch import ActiveRole


class SilentPoolObserver:
    """Ignores what changes in the pool."""

    def health_changed(self, backend: Backend, before: Health) -> None:
        """Ignore it."""

    def role_changed(self, before: ActiveRole, after: ActiveRole) -> None:
        """Ignore it."""
