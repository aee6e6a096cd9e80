"""One server as the pool sees it, and the right to run a generation there."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ai_ticket_daemon.pool.pause import Pause
from ai_ticket_daemon.pool.waking import Waking
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.config.backends import ServerConfig
    from ai_ticket_daemon.pool.failover import ActiveRole
    from ai_ticket_daemon.pool.health import Health


class GuestReason(StrEnum):
    """Why an event is sent to a server whose role does not serve; a label of metrics."""

    SPILL = "spill"
    """The primaries are busy with requests of others, and ``spill_to_standby`` is on."""
    RETRY = "retry"
    """The event failed on the servers that serve."""


@dataclass(slots=True, eq=False)
class Backend:
    """One server: what the conf file says of it and how it is doing. Compared by identity.

    ``slots`` counts the slots in use by the client they were taken with: a changed setting brings
    a new client, while generations go on with the old one. ``guests`` are those of them that are
    here by exception. ``queue_looks`` in a row found it with requests in its own queue beside
    several of ours; ``slots_doubted``: it was said that it takes fewer at a time than
    ``max_in_flight``. ``look_wanted``: the next probe is due now. ``client_is_new``: its client has
    not looked there yet, and does not know how to ask. ``crash``: what went wrong in the daemon
    itself when it last looked there; None if nothing did.
    ``read_last``: digests of what the prompts begin with that its free slots have read last, the
    oldest first, None for a short one; ``reading`` slots have another prompt now.
    """

    config: ServerConfig
    client: BackendClient
    health: Health
    slots: Counter[BackendClient] = field(default_factory=Counter)
    guests: Counter[GuestReason] = field(default_factory=Counter)
    pause: Pause = field(default_factory=Pause)
    waking: Waking = field(default_factory=Waking)
    removed: bool = False
    queue_looks: int = 0
    slots_doubted: bool = False
    look_wanted: bool = False
    client_is_new: bool = False
    crash: str | None = None
    doubted: Wakeup = field(default_factory=Wakeup)
    read_last: deque[bytes | None] = field(default_factory=deque)
    reading: int = 0

    @property
    def name(self) -> str:
        """The server's name in the conf file."""
        return self.config.name

    @property
    def reason(self) -> str:
        """Why it is as it is, in words."""
        return "stops after the prompt is read" if self.pause.reads_on else self.health.reason

    @property
    def in_flight(self) -> int:
        """How many slots are in use."""
        return self.slots.total()

    def drop_overwritten(self) -> None:
        """Keep what was read last of as many slots as read nothing now."""
        while len(self.read_last) > max(0, self.config.max_in_flight - self.reading):
            self.read_last.popleft()

    @property
    def has_free_slot(self) -> bool:
        """Whether one more generation may be sent there.

        A server that comes back from a setback gets one at a time until it has made a completion,
        and one that has unloaded its model the one that loads it.
        """
        single = self.health.setbacks or self.health.loads_on_request
        limit = 1 if single else self.config.max_in_flight
        taken = self.in_flight >= limit or self.client_is_new
        return self.health.usable and self.pause.until is None and not taken


class Slot:
    """The right to run one generation on one backend, until released."""

    def __init__(
        self, backend: Backend, guest: GuestReason | None, on_release: Callable[[Slot], None]
    ) -> None:
        self.backend = backend
        self.client = backend.client
        self.guest = guest
        self._on_release: Callable[[Slot], None] | None = on_release
        self._has_read = False
        self._beginning: bytes | None = None
        backend.slots[self.client] += 1
        if guest is not None:
            backend.guests[guest] += 1

    @property
    def is_taken(self) -> bool:
        """Whether it was not given back yet."""
        return self._on_release is not None

    def read(self, beginning: bytes | None) -> bool:
        """Note what the prompt begins with that is sent; return whether that was read last here.

        A server that has several slots puts a prompt in the free one that knows its beginning.
        """
        backend = self.backend
        was_read = beginning is not None and beginning in backend.read_last
        if was_read:
            backend.read_last.remove(beginning)
        backend.reading += not self._has_read
        self._has_read, self._beginning = True, beginning
        backend.drop_overwritten()
        return was_read

    def release(self) -> None:
        """Give the slot back; a second call does nothing."""
        on_release = self._on_release
        if on_release is not None:
            self.give_back()
            on_release(self)

    def give_back(self) -> None:
        """Give the slot back unused: as if it had never been taken, so nobody is woken."""
        self._on_release = None
        slots, guests = self.backend.slots, self.backend.guests
        slots[self.client] -= 1
        if not slots[self.client]:
            del slots[self.client]
        if self.guest is not None:
            guests[self.guest] -= 1
        if self._has_read:
            self.backend.reading -= 1
            self.backend.read_last.append(self._beginning)
            self.backend.drop_overwritten()


class PoolObserver:
    """Is told of what changes in the pool; one that logs or counts overrides what it needs."""

    def health_changed(self, backend: Backend, before: Health) -> None:
        """``backend.health`` is another state than ``before``."""

    def restarted(self, backend: Backend) -> None:
        """The server was restarted since it was last looked at."""

    def identified(self, backend: Backend) -> None:
        """``backend.health.software`` is another one than before."""

    def slots_contradicted(self, backend: Backend) -> None:
        """The server lets some of our requests wait: it takes fewer than ``max_in_flight``."""

    def woken(self, backend: Backend, problem: str | None) -> None:
        """The server was made to load its model, or could not be, because of ``problem``."""

    def probe_crashed(self, backend: Backend, error: Exception) -> None:
        """The daemon itself failed when it looked at the server; told once for each such row."""

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        """Another role serves now, or a pin came or went.

        ``from_backend`` and ``to_backend`` are the first servers of the two roles.
        """

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        """An event is sent to ``backend`` by exception."""
