"""The backends and their slots: who may generate where. The one owner of that state.

All changes happen in synchronous methods, so no two tasks ever see half of one.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.failure import HealthEvent, RetryRule
from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.host.exhaustion import AGAIN_SECONDS
from ai_ticket_daemon.pool.backend import Backend, PoolObserver, Slot
from ai_ticket_daemon.pool.failover import ActiveRole, Roles, choose_role, fail_back, pin, unpin
from ai_ticket_daemon.pool.health import Health, HealthState, after
from ai_ticket_daemon.pool.health_events import (
    GenerationFailed,
    GenerationSucceeded,
    ProbeAnswered,
    ProbeSilent,
    health_event_of_probe,
)
from ai_ticket_daemon.pool.identity import expected_of
from ai_ticket_daemon.pool.pause import pause_seconds
from ai_ticket_daemon.pool.selection import choose, choose_other, has_other, serving
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ai_ticket_daemon.backends.failure import BackendError
    from ai_ticket_daemon.backends.generation import BackendClient, ProbeResult
    from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
    from ai_ticket_daemon.pool.health_events import HealthInput
    from ai_ticket_daemon.pool.identity import Expected
    from ai_ticket_daemon.pool.selection import Choice

WAKE_AGAIN_SECONDS = 60.0
"""Between two tries to have a standby loaded that cannot be."""

__all__ = ["Backend", "BackendPool", "PoolObserver", "Slot"]


class BackendPool:
    """Hands out slots on the servers of the role that serves.

    ``changed`` tells that an event might get a slot now, ``servers_changed`` that the list of
    servers is another one or a client is idle for good, ``record_changed`` that what should
    outlive the process has changed.

    Args:
        settings: the ``[backends]`` section in force now.
        open_client: makes the client of a server.
        observer: is told of every change.
        clock: seconds, monotonic.
        jitter: a random number from 0 to 1.
    """

    def __init__(
        self,
        settings: Callable[[], BackendsConfig],
        *,
        open_client: Callable[[ServerConfig], BackendClient],
        observer: PoolObserver,
        clock: Callable[[], float] = trio.current_time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._open_client = open_client
        self._observer = observer
        self._clock = clock
        self._jitter = jitter
        self._backends: dict[str, Backend] = {}
        self._retired: list[tuple[Backend, BackendClient]] = []
        self.active = ActiveRole()
        self.changed = Wakeup()
        self.servers_changed = Wakeup()
        self.record_changed = Wakeup()
        self.apply(settings().servers)

    def __iter__(self) -> Iterator[Backend]:
        return iter(tuple(self._backends.values()))

    def __getitem__(self, name: str) -> Backend:
        """Return the server called ``name``; KeyError if there is none."""
        return self._backends[name]

    # The list of servers.

    def apply(self, servers: Sequence[ServerConfig]) -> None:
        """Make the pool hold just ``servers``, keeping what is known of those at the same address.

        Generations that run go on, also on a removed server, with the settings they began with.
        """
        # First what may fail: then nothing has changed yet.
        clients = {
            config.name: self._open_client(config)
            for config in servers
            if not (old := self._backends.get(config.name)) or old.config != config
        }
        before, self._backends = self._backends, {}
        for config in servers:
            old = before.get(config.name)
            if old is None or (old.config.url, old.config.kind) != (config.url, config.kind):
                backend = Backend(config, clients[config.name], Health())
            else:
                del before[config.name]
                backend = old
                if old.config != config:
                    self._retired.append((old, old.client))
                    old.config, old.client = config, clients[config.name]
                    old.slots_doubted = False
            self._backends[config.name] = backend
        for backend in before.values():
            backend.removed = True
            self._retired.append((backend, backend.client))
        if self.active.pinned is not None and self.active.pinned not in self._backends:
            self.unpin()
        self.servers_changed.notify()
        self.changed.notify()
        self._reconsider()

    def take_idle_clients(self) -> list[BackendClient]:
        """Return the clients of earlier settings that nothing runs on any more, for closing."""
        idle = [client for backend, client in self._retired if not backend.slots[client]]
        self._retired = [(b, client) for b, client in self._retired if b.slots[client]]
        return idle

    # Slots.

    @property
    def usable(self) -> bool:
        """Whether any server that may be used is usable now."""
        if self.active.pinned is not None:
            return any(b.health.usable for b in serving(self, self.active))
        return any(backend.health.usable for backend in self)

    @property
    def capacity(self) -> int:
        """How many generations the usable servers of the active role take at a time."""
        active = (b for b in serving(self, self.active) if b.health.usable)
        return sum(backend.config.max_in_flight for backend in active)

    def writing_seconds(self, tokens: int) -> float | None:
        """How long the slowest server that serves writes so much; None if none tells its speed."""
        speeds = [
            backend.health.written_tokens_per_second
            for backend in serving(self, self.active)
            if backend.health.usable and backend.health.written_tokens_per_second
        ]
        return tokens / min(speeds) if speeds else None

    @property
    def retry_after_seconds(self) -> float:
        """How long a server that has come back takes to be believed, at the least."""
        rules = self._settings()
        return max(1.0, rules.rise * rules.probe_fast_interval_seconds)

    def acquire(self) -> Slot | None:
        """Take a slot for the next event, whichever that is; None if none is free."""
        return self._take(choose(tuple(self), self.active, spill=self._settings().spill_to_standby))

    def exchange(self, slot: Slot, avoid: Collection[str]) -> Slot | None:
        """Return a slot on another server than those in ``avoid``, in place of ``slot``.

        For an event that has failed there; call it before anything was sent. Returns ``slot``
        itself if there is no other server to try, and None, with ``slot`` still taken, if there is
        one but it has no slot free now.
        """
        if slot.backend.name not in avoid:
            return slot
        other = self._take(choose_other(tuple(self), self.active, avoid=avoid))
        if other is not None:
            slot.give_back()
            return other
        return None if self.has_other(avoid) else slot

    def has_other(self, avoid: Collection[str]) -> bool:
        """Whether an event that failed on ``avoid`` can be tried elsewhere."""
        return has_other(tuple(self), self.active, avoid=avoid)

    def _take(self, choice: Choice | None) -> Slot | None:
        if choice is None:
            return None
        backend, guest = choice
        if guest is not None:
            self._observer.guest_sent(backend, guest)
        return Slot(backend, guest, self._released)

    def _released(self, slot: Slot) -> None:
        if slot.client is not slot.backend.client or slot.backend.removed:
            self.servers_changed.notify()
        self.changed.notify()

    # Models that come and go.

    def wake(self, name: str) -> None:
        """Have the server ``name`` load its model; KeyError if there is none of that name."""
        backend = self._backends[name]
        backend.wake_wanted = True
        backend.doubted.notify()

    def should_wake(self, backend: Backend) -> bool:
        """Whether a server is to load its model now, because of an order or ahead of need."""
        if backend.wake_wanted:
            backend.wake_wanted = False
            # To load anew would end what it generates.
            return not backend.health.has_model
        return (
            self._settings().keep_standby_loaded
            and backend.config.role is BackendRole.STANDBY
            and backend.health.state is HealthState.UNLOADED
            and self._clock() >= backend.wake_again_at
        )

    def woken(self, backend: Backend, problem: str | None) -> None:
        """Take in that a server was made to load its model, or why it could not be."""
        if problem is not None:
            backend.wake_again_at = self._clock() + WAKE_AGAIN_SECONDS
        self._observer.woken(backend, problem)

    # What is seen of the servers.

    def probed(self, backend: Backend, result: ProbeResult) -> None:
        """Take in what a probe found."""
        if backend.reads_on and result.busy is False:
            self._end_pause(backend)
        self.saw(backend, ProbeAnswered(result, self._expected(backend)))
        # One look may fall between two generations.
        queues = bool(result.waiting) and backend.in_flight > 1
        backend.queue_looks = backend.queue_looks + 1 if queues else 0
        if backend.queue_looks >= self._settings().fall and not backend.slots_doubted:
            backend.slots_doubted = True
            self._observer.slots_contradicted(backend)

    def probe_failed(self, backend: Backend, error: BackendError) -> None:
        """Take in that a probe was refused, or not answered sensibly."""
        software = backend.health.software
        self.saw(backend, health_event_of_probe(error, self._expected(backend), software))

    def _expected(self, backend: Backend) -> Expected:
        primaries = [
            (b.name, b.health.identity) for b in self if b.config.role is BackendRole.PRIMARY
        ]
        match_primary = self._settings().match_primary
        return expected_of(backend.config, primaries, match_primary=match_primary)

    def saw(self, backend: Backend, event: HealthInput) -> None:
        """Take in what was seen of a server."""
        rules, now = self._settings(), self._clock()
        before = backend.health
        backend.health = health = after(before, event, rules=rules, now=now)
        if health.restarts > before.restarts:
            self._observer.restarted(backend)
        if health.software != before.software:
            self._observer.identified(backend)
        if health.state is not before.state:
            self._observer.health_changed(backend, before)
        if health.in_transition and not before.in_transition:
            backend.doubted.notify()
        if (health.state, health.setbacks) != (before.state, before.setbacks):
            self.changed.notify()
            self.record_changed.notify()
        match event:
            case ProbeSilent() | GenerationFailed(HealthEvent.LOST):
                for client in tuple(backend.slots):
                    client.doubt()
        self._reconsider()

    def attempt_succeeded(self, slot: Slot) -> None:
        """Take in that a server gave a completion."""
        backend = slot.backend
        backend.refusals, backend.paused_until, backend.reads_on = 0, None, False
        health = backend.health
        if health.setbacks or health.failed_events or health.state is HealthState.STUCK:
            self.saw(backend, GenerationSucceeded())

    def attempt_failed(self, slot: Slot, event_id: str, error: BackendError) -> None:
        """Take in how an attempt failed: what it says of the server, or how long to leave it."""
        backend = slot.backend
        if error.failure.retry is RetryRule.HOST:
            # Nothing is known of the server; the next event would fare no better at once.
            backend.paused_until = self._clock() + AGAIN_SECONDS
            self.changed.notify()
            return
        if error.failure.retry is RetryRule.BUSY:
            backend.refusals += 1
            wait = pause_seconds(
                backend.refusals, error.retry_after_seconds, self._jitter(), self._settings()
            )
            backend.paused_until = self._clock() + wait
            self.changed.notify()
            return
        health_event = error.failure.health_event
        if health_event is not None:
            self.saw(backend, GenerationFailed(health_event, error.message, event_id))

    def abort_ignored(self, name: str) -> None:
        """Take in that a server goes on generating what nobody wants any more."""
        backend = self._backends.get(name)
        if backend is not None:
            reason = "does not stop generating when told to"
            self.saw(backend, GenerationFailed(HealthEvent.STALLED, reason))

    def reads_on(self, name: str, seconds: float) -> None:
        """Take in that a server stops when it has read a prompt, in so many seconds at the most.

        Nothing is sent there meanwhile; a probe that finds it idle ends that sooner.
        """
        backend = self._backends.get(name)
        if backend is not None:
            backend.reads_on = True
            backend.paused_until = max(backend.paused_until or 0.0, self._clock() + seconds)
            backend.doubted.notify()
            self.changed.notify()

    @property
    def next_pause_ends_at(self) -> float | None:
        """When the first pause of a busy server ends (seconds, monotonic); None without pauses."""
        return min((b.paused_until for b in self if b.paused_until is not None), default=None)

    def pause_left_seconds(self, backend: Backend) -> float:
        """How long a busy server will be left alone from now; 0 for any other."""
        return 0.0 if backend.paused_until is None else backend.paused_until - self._clock()

    def end_pauses(self) -> None:
        """End the pauses that are over, so that busy servers are tried again."""
        now = self._clock()
        for backend in self:
            if backend.paused_until is not None and backend.paused_until <= now:
                self._end_pause(backend)

    def _end_pause(self, backend: Backend) -> None:
        backend.paused_until, backend.reads_on = None, False
        self.changed.notify()

    # Who serves.

    def pin(self, name: str) -> None:
        """Let only the server ``name`` serve, usable or not, until :meth:`unpin`.

        Raises:
            KeyError: there is no such server.
        """
        role = self._backends[name].config.role
        self._activate(pin(self.active, name, role, now=self._clock()))

    def unpin(self) -> None:
        """Let the rules decide again."""
        if self.active.pinned is not None:
            self._activate(unpin(self.active))
            self._reconsider()

    def failback(self) -> bool:
        """Let the primaries serve again now; False if none is usable, or a server is pinned."""
        if self.active.pinned is not None:
            return False
        if self.active.role is BackendRole.STANDBY:
            if self._roles().primary_usable_since is None:
                return False
            self._activate(fail_back(self.active, now=self._clock()))
        return True

    def restore(self, active: ActiveRole, healths: Mapping[str, Health]) -> None:
        """Take over what an earlier process knew; to be called before the first probe."""
        for name, health in healths.items():
            self._backends[name].health = health
        if active.pinned is not None and active.pinned not in self._backends:
            active = unpin(active)
        # Nothing has changed but this process: nobody is told of a switch.
        self.active = active
        self.changed.notify()

    def _reconsider(self) -> None:
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
        servers = serving(self, active)
        usable = [b.name for b in servers if b.health.usable]
        return next(iter(usable or [b.name for b in servers]), "none")

    def _roles(self) -> Roles:
        primaries = [b for b in self if b.config.role is BackendRole.PRIMARY]
        standbys = [b for b in self if b.config.role is BackendRole.STANDBY]
        since = [b.health.usable_since for b in primaries if b.health.usable_since is not None]
        return Roles(
            primary_usable_since=min(since, default=None),
            primary_unknown=any(b.health.state is HealthState.UNKNOWN for b in primaries),
            standby_usable=any(b.health.usable for b in standbys),
            standby_exists=bool(standbys),
            primary_trouble="; ".join(
                f"{b.name} is {b.health.state}, {b.health.reason}" for b in primaries
            ),
        )
