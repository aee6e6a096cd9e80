"""The backends and their slots: who may generate where. The one owner of that state.

All changes happen in synchronous methods, so no two tasks ever see half of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from ai_ticket_daemon.backends.health import (
    Health,
    HealthState,
    after_failed_probe,
    after_lost_connection,
    after_probe,
)
from ai_ticket_daemon.backends.switch import ActiveRole, choose_role
from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.errors import Disposition, ErrorCode
from ai_ticket_daemon.runtime.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ai_ticket_daemon.backends.generation import BackendClient, ProbeResult
    from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
    from ai_ticket_daemon.errors import BackendError


class PoolObserver(Protocol):
    """Is told of what changes in the pool; logs it and counts it."""

    def health_changed(self, backend: Backend, before: Health) -> None:
        """``backend.health`` is another state than ``before``."""

    def role_changed(self, before: ActiveRole, after: ActiveRole) -> None:
        """Another role serves now: a failover or a failback."""


@dataclass(slots=True, eq=False)
class Backend:
    """One server: what the conf file says of it and how it is doing. Compared by identity."""

    config: ServerConfig
    client: BackendClient
    health: Health
    in_flight: int = 0
    removed: bool = False

    @property
    def name(self) -> str:
        """The server's name in the conf file."""
        return self.config.name

    @property
    def has_free_slot(self) -> bool:
        """Whether one more generation may be sent there."""
        return self.health.usable and self.in_flight < self.config.max_in_flight


class Slot:
    """The right to run one generation on one backend, until released."""

    def __init__(self, backend: Backend, on_release: Callable[[], None]) -> None:
        self.backend = backend
        self._on_release: Callable[[], None] | None = on_release

    def release(self) -> None:
        """Give the slot back; a second call does nothing."""
        if self._on_release is not None:
            on_release = self._on_release
            self.give_back()
            on_release()

    def give_back(self) -> None:
        """Give the slot back unused: as if it had never been taken, so nobody is woken."""
        self._on_release = None
        self.backend.in_flight -= 1


class BackendPool:
    """Hands out slots on the servers of the role that serves.

    Args:
        settings: the ``[backends]`` section in force now.
        open_client: makes the client of a server.
        observer: is told of every change.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: Callable[[], BackendsConfig],
        *,
        open_client: Callable[[ServerConfig], BackendClient],
        observer: PoolObserver,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._settings = settings
        self._open_client = open_client
        self._observer = observer
        self._clock = clock
        self._backends: dict[str, Backend] = {}
        self.active = ActiveRole()
        self.changed = Signal()
        self.servers_changed = Signal()
        self.apply(settings().servers)

    def __iter__(self) -> Iterator[Backend]:
        return iter(tuple(self._backends.values()))

    def apply(self, servers: Sequence[ServerConfig]) -> list[Backend]:
        """Make the pool hold just ``servers``, keeping what is known of unchanged ones.

        Generations that run on a removed server go on. Returns the removed backends, whose
        clients are for the caller to close once nothing runs there.
        """
        kept: dict[str, Backend] = {}
        removed = []
        for config in servers:
            old = self._backends.pop(config.name, None)
            if old is not None and old.config == config:
                kept[config.name] = old
                continue
            if old is not None:
                removed.append(old)
            kept[config.name] = Backend(config, self._open_client(config), Health())
        removed.extend(self._backends.values())
        for backend in removed:
            backend.removed = True
        self._backends = kept
        self.servers_changed.notify()
        self._reconsider()
        return removed

    @property
    def usable(self) -> bool:
        """Whether any backend of any role may be used now."""
        return any(backend.health.usable for backend in self)

    @property
    def retry_after_seconds(self) -> float:
        """How long a server that has come back takes to be believed, at the least."""
        rules = self._settings()
        return max(1.0, rules.rise * rules.probe_fast_interval_seconds)

    def acquire(self) -> Slot | None:
        """Take a slot on the least loaded server of the active role; None if none is free."""
        free = [b for b in self if b.config.role is self.active.role and b.has_free_slot]
        if not free:
            return None
        backend = min(free, key=lambda b: b.in_flight / b.config.max_in_flight)
        backend.in_flight += 1
        return Slot(backend, self.changed.notify)

    def probed(self, backend: Backend, result: ProbeResult) -> None:
        """Take in what a probe found."""
        health = after_probe(
            backend.health,
            result,
            expected_model=backend.config.model,
            rules=self._settings(),
            now=self._clock(),
        )
        self._set(backend, health)

    def probe_failed(self, backend: Backend, reason: str) -> None:
        """Take in that a probe was not answered, or not sensibly."""
        self._set(
            backend,
            after_failed_probe(backend.health, reason, rules=self._settings(), now=self._clock()),
        )

    def attempt_failed(self, backend: Backend, error: BackendError) -> None:
        """Take in how an attempt failed: only a lost connection says something of the server."""
        if error.code is ErrorCode.API_CONNECTION_ERROR and error.disposition is not (
            Disposition.SAME
        ):
            self._set(
                backend, after_lost_connection(backend.health, error.message, now=self._clock())
            )

    def _set(self, backend: Backend, health: Health) -> None:
        before, backend.health = backend.health, health
        if before.state is not health.state:
            self._observer.health_changed(backend, before)
        self._reconsider()

    def _reconsider(self) -> None:
        primaries = [b.health for b in self if b.config.role is BackendRole.PRIMARY]
        standbys = [b.health for b in self if b.config.role is BackendRole.STANDBY]
        since = [h.usable_since for h in primaries if h.usable_since is not None]
        active = choose_role(
            self.active,
            primary_usable_since=min(since, default=None),
            primary_unknown=any(h.state is HealthState.UNKNOWN for h in primaries),
            standby_usable=any(h.usable for h in standbys),
            rules=self._settings(),
            now=self._clock(),
        )
        if active is not self.active:
            before, self.active = self.active, active
            self._observer.role_changed(before, active)
        self.changed.notify()
