"""The backends and their slots: who may generate where. The one owner of that state.

All changes happen in synchronous methods, so no two tasks ever see half of one.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.failure import HealthEvent, RetryRule
from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.pool.backend import Backend, PoolObserver, Slot
from ai_ticket_daemon.pool.expected_turn import turn_seconds
from ai_ticket_daemon.pool.health import Health, HealthState
from ai_ticket_daemon.pool.health_events import (
    GenerationFailed,
    GenerationSucceeded,
    LoadBegun,
    ProbeAnswered,
    ProbeFailed,
    ProbeSilent,
    health_event_of_probe,
)
from ai_ticket_daemon.pool.health_rules import after
from ai_ticket_daemon.pool.identity import expected_of
from ai_ticket_daemon.pool.pause import Pause
from ai_ticket_daemon.pool.pauses import Pauses
from ai_ticket_daemon.pool.selection import choose, choose_other, has_other, serving
from ai_ticket_daemon.pool.serving_role import ServingRole
from ai_ticket_daemon.pool.waking import AGAIN_SECONDS as WAKE_AGAIN_SECONDS
from ai_ticket_daemon.pool.waking import wake_due
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ai_ticket_daemon.backends.failure import BackendError
    from ai_ticket_daemon.backends.generation import BackendClient, ProbeResult
    from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
    from ai_ticket_daemon.pool.failover import ActiveRole
    from ai_ticket_daemon.pool.health_events import HealthInput
    from ai_ticket_daemon.pool.identity import Expected
    from ai_ticket_daemon.pool.selection import Choice

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
        self._backends: dict[str, Backend] = {}
        self._retired: list[tuple[Backend, BackendClient]] = []
        self._role = ServingRole(
            settings, lambda: tuple(self._backends.values()), observer=observer, clock=clock
        )
        self.changed = Wakeup()
        self.servers_changed = Wakeup()
        self.record_changed = Wakeup()
        self.pauses = Pauses(self, self.changed, settings=settings, clock=clock, jitter=jitter)
        self._role.changed.forward_to(self.changed)
        self._role.record_changed.forward_to(self.record_changed)
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
                    old.slots_doubted, old.client_is_new = False, True
                    self._look(old)
            self._backends[config.name] = backend
        for backend in before.values():
            backend.removed = True
            self._retired.append((backend, backend.client))
        self._role.unpin_missing()
        self.servers_changed.notify()
        self.changed.notify()
        self._role.reconsider()

    def take_idle_clients(self) -> list[BackendClient]:
        """Return the clients of earlier settings that nothing runs on any more, for closing."""
        idle = [client for backend, client in self._retired if not backend.slots[client]]
        self._retired = [(b, client) for b, client in self._retired if b.slots[client]]
        return idle

    # Slots.

    @property
    def usable(self) -> bool:
        """Whether any server that may be used is usable now, or its model expected back."""
        pinned = self.active.pinned is not None
        servers, now = serving(self, self.active) if pinned else self, self._clock()
        return any(backend.health.usable_soon(now) for backend in servers)

    @property
    def capacity(self) -> int:
        """How many generations the usable servers of the active role take at a time."""
        active = (b for b in serving(self, self.active) if b.health.usable)
        return sum(backend.config.max_in_flight for backend in active)

    def expected_turn_seconds(self, written_tokens: int) -> float | None:
        """How long writing so much is likely to take where events go now; None if nobody knows."""
        healths = (backend.health for backend in serving(self, self.active))
        return turn_seconds((h for h in healths if h.usable), written_tokens)

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
        backend.waking.ordered = True
        self._look(backend)

    def begin_wake(self, backend: Backend) -> bool:
        """Whether a server is to load its model now; if so, :meth:`end_wake` has to follow."""
        waking = backend.waking
        due = wake_due(
            waking,
            backend.health,
            backend.config.role,
            asked=backend.in_flight > 0,
            rules=self._settings(),
            now=self._clock(),
        )
        waking.ordered, waking.running = False, waking.running or due
        return due

    def woken(self, backend: Backend, problem: str | None) -> None:
        """Take in that a server was made to load its model, or why it could not be."""
        # A router answers when the model is loaded, any other server when it begins to.
        begins = "router" not in backend.health.software.features
        if problem is not None or begins:
            backend.waking.again_at = self._clock() + WAKE_AGAIN_SECONDS
        if problem is None and begins:
            self.saw(backend, LoadBegun(backend.config.load_timeout_seconds))
        self._observer.woken(backend, problem)

    def end_wake(self, backend: Backend) -> None:
        """Take in that nobody makes the server load its model any more, whatever came of it."""
        backend.waking.running = False
        self._look(backend)

    def _look(self, backend: Backend) -> None:
        backend.look_wanted = True
        backend.doubted.notify()

    # What is seen of the servers.

    def looked(self, backend: Backend, client: BackendClient) -> None:
        """Take in that a client has looked at its server, whatever it saw."""
        if backend.client_is_new and client is backend.client:
            backend.client_is_new = False
            self.changed.notify()

    def probed(self, backend: Backend, result: ProbeResult) -> None:
        """Take in what a probe found."""
        if result.busy is False:
            self.pauses.reads_no_more(backend)
        self.saw(backend, ProbeAnswered(result, self._expected(backend)))
        # One look may fall between two generations.
        queues = bool(result.waiting) and backend.in_flight > 1
        backend.queue_looks = backend.queue_looks + 1 if queues else 0
        if backend.queue_looks >= self._settings().fall and not backend.slots_doubted:
            backend.slots_doubted = True
            self._observer.slots_contradicted(backend)
        backend.crash = None

    def probe_crashed(self, backend: Backend, error: Exception) -> None:
        """Take in that looking at a server failed by a fault of this program."""
        crash, told = type(error).__name__, backend.crash
        backend.crash = crash
        if crash != told:
            self._observer.probe_crashed(backend, error)
        self.saw(backend, ProbeFailed(f"its probe failed by a fault of the daemon: {crash}"))

    def probe_failed(self, backend: Backend, error: BackendError) -> None:
        """Take in that a probe was refused, or not answered sensibly."""
        event = health_event_of_probe(
            error,
            self._expected(backend),
            backend.health.software,
            load_seconds=backend.config.load_timeout_seconds,
        )
        self.saw(backend, event)

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
        if health.has_model:
            backend.waking.again_at = -math.inf
        if health.restarts > before.restarts or not health.keeps_prompts:
            backend.read_last.clear()
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
        self._role.reconsider()

    def attempt_succeeded(self, slot: Slot) -> None:
        """Take in that a server gave a completion."""
        backend = slot.backend
        backend.pause = Pause()
        health = backend.health
        if health.setbacks or health.failed_events or health.state is HealthState.STUCK:
            self.saw(backend, GenerationSucceeded())

    def attempt_failed(self, slot: Slot, event_id: str, error: BackendError) -> None:
        """Take in how an attempt failed: what it says of the server, or how long to leave it."""
        backend = slot.backend
        slot.read(None)  # What it knows of the prompt now is anybody's guess.
        if error.failure.retry is RetryRule.HOST:
            self.pauses.host_lacks(backend)
            return
        if error.failure.retry is RetryRule.BUSY:
            self.pauses.busy(backend, error.retry_after_seconds)
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
        """Take in that a server stops when it has read a prompt, in so many seconds at the most."""
        backend = self._backends.get(name)
        if backend is not None:
            self.pauses.reads_on(backend, seconds)

    def reads_no_more(self, name: str) -> None:
        """Take in that a server that was told to stop has, or does so for another reason."""
        backend = self._backends.get(name)
        if backend is not None:
            self.pauses.reads_no_more(backend)

    # Who serves.

    @property
    def active(self) -> ActiveRole:
        """The role that serves, and why."""
        return self._role.active

    def pin(self, name: str) -> None:
        """Let only the server ``name`` serve, usable or not, until :meth:`unpin`.

        Raises:
            KeyError: there is no such server.
        """
        self._role.pin(self._backends[name])

    def unpin(self) -> None:
        """Let the rules decide again."""
        self._role.unpin()

    def failback(self) -> bool:
        """Let the primaries serve again now; False if none is usable, or a server is pinned."""
        return self._role.failback()

    def restore(self, active: ActiveRole, healths: Mapping[str, Health]) -> None:
        """Take over what an earlier process knew; to be called before the first probe."""
        for name, health in healths.items():
            self._backends[name].health = health
        self._role.restore(active)
        self.changed.notify()
