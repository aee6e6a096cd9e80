"""The role that serves: keeps it, and has it follow what becomes of the servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.pool.failover import ActiveRole, Roles, choose_role, fail_back, pin, unpin
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.pool.selection import serving
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.pool.backend import Backend, PoolObserver


class ServingRole:
    """Keeps the role that serves.

    ``changed`` tells that another one does, ``record_changed`` that what should outlive the process
    has changed.

    Args:
        settings: the ``[backends]`` section in force now.
        servers: all servers there are now.
        observer: is told of every change.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: Callable[[], BackendsConfig],
        servers: Callable[[], Collection[Backend]],
        *,
        observer: PoolObserver,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._servers = servers
        self._observer = observer
        self._clock = clock
        self.active = ActiveRole()
        self.changed = Wakeup()
        self.record_changed = Wakeup()

    def pin(self, backend: Backend) -> None:
        """Let only that server serve, usable or not, until :meth:`unpin`."""
        self._activate(pin(self.active, backend.name, backend.config.role, now=self._clock()))

    def unpin(self) -> None:
        """Let the rules decide again."""
        if self.active.pinned is not None:
            self._activate(unpin(self.active))
            self.reconsider()

    def unpin_missing(self) -> None:
        """Let the rules decide again if the pinned server is not there any more."""
        if self.active.pinned not in {backend.name for backend in self._servers()}:
            self.unpin()

    def failback(self) -> bool:
        """Let the primaries serve again now; False if none is usable, or a server is pinned."""
        if self.active.pinned is not None:
            return False
        if self.active.role is BackendRole.STANDBY:
            if self._roles().primary_usable_since is None:
                return False
            self._activate(fail_back(self.active, now=self._clock()))
        return True

    def restore(self, active: ActiveRole) -> None:
        """Take over what an earlier process knew; nobody is told, since nothing has changed."""
        names = {backend.name for backend in self._servers()}
        missing = active.pinned is not None and active.pinned not in names
        self.active = unpin(active) if missing else active

    def reconsider(self) -> None:
        """Have the role follow what is known of the servers now."""
        self._activate(
            choose_role(self.active, self._roles(), rules=self._settings(), now=self._clock())
        )

    def _activate(self, after: ActiveRole) -> None:
        before, self.active = self.active, after
        if (after.role, after.pinned) != (before.role, before.pinned):
            self._observer.role_changed(
                before,
                after,
                from_backend=self._first_of(before),
                to_backend=self._first_of(after),
            )
            self.changed.notify()
        if after != before:
            self.record_changed.notify()

    def _first_of(self, active: ActiveRole) -> str:
        servers = serving(self._servers(), active)
        usable = [b.name for b in servers if b.health.usable]
        return next(iter(usable or [b.name for b in servers]), "none")

    def _roles(self) -> Roles:
        servers, now = self._servers(), self._clock()
        primaries = [b for b in servers if b.config.role is BackendRole.PRIMARY]
        standbys = [b for b in servers if b.config.role is BackendRole.STANDBY]
        since = [
            b.health.usable_since
            for b in primaries
            if b.health.usable and b.health.usable_since is not None
        ]
        return Roles(
            primary_usable_since=min(since, default=None),
            primary_awaited=any(b.health.usable_soon(now) for b in primaries),
            primary_loads=all(b.health.usable or b.health.model_is_away for b in primaries),
            primary_unknown=any(b.health.state is HealthState.UNKNOWN for b in primaries),
            standby_usable=any(b.health.usable for b in standbys),
            standby_exists=bool(standbys),
            primary_trouble="; ".join(
                f"{b.name} is {b.health.state}, {b.health.reason}" for b in primaries
            ),
        )
