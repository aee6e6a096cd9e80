"""Who may connect: so many connections in all, so many of one address, and a few that always may.

Nobody can keep the others out: an address has a bound of its own, and of all connections those that
ask for nothing give way first when there is no room. Probes from this host get in whatever happens:
a few connections are kept back for them, on which nothing else is served before there is room.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.ports import ConnectionRefusal

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_WAITING = 256
"""How many connections may wait for room; they are accepted, and nothing is read from them."""

RESERVED = 16
"""How many connections of this host may be served beyond all others, for probes."""

IDLE_SECONDS = 1.0
"""How long a connection must have asked for nothing before it has to give way."""

LOOK_AGAIN_SECONDS = 0.5
RETRY_AFTER_SECONDS = 5.0


class Line(Protocol):
    """A connection, as far as it matters whether it may stay."""

    idle_since: float | None
    """Since when nothing has been asked on it; None while something is."""

    def give_way(self) -> None:
        """End it at once."""


class Standing(Enum):
    """What a connection may do."""

    PLACED = auto()
    """It has a place, and may do everything."""
    RESERVED = auto()
    """It is served what probes ask for, and nothing else before it has a place."""
    WAITING = auto()
    """It is not served."""


class Guest:
    """One accepted connection.

    Args:
        client: the address it counts for; None if it counts for none.
        standing: what it may do now.
        is_over: whether its address has more than it may have, so that it never gets a place.
    """

    def __init__(self, client: str | None, standing: Standing, *, is_over: bool) -> None:
        self.client = client
        self.standing = standing
        self.is_over = is_over
        self.line: Line | None = None
        self.placed = trio.Event()


class Admission:
    """Decides who may connect. Owns the count of connections.

    Args:
        max_connections: how many may have a place.
        max_per_address: how many of them one address may have; 0 for no bound of its own.
    """

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._by_client: Counter[str] = Counter()
        self._guests: dict[Standing, OrderedDict[Guest, None]] = {
            standing: OrderedDict() for standing in Standing
        }
        self._closed = False

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return len(self._guests[Standing.PLACED]) >= self._max_connections

    def admit(self, client: str | None, *, local: bool) -> Guest | ConnectionRefusal:
        """Let a connection in, or say why not; whoever was let in has to :meth:`leave`.

        Args:
            client: the address it counts for; None for one that no address answers for, such as
                a trusted proxy's.
            local: whether it comes from this host.
        """
        is_over = (
            client is not None
            and self._max_per_address > 0
            and self._by_client[client] >= self._max_per_address
        )
        standing = self._standing(is_over=is_over, local=local)
        if isinstance(standing, ConnectionRefusal):
            return standing
        # What is beyond the bound does not count towards it.
        guest = Guest(None if is_over else client, standing, is_over=is_over)
        self._guests[standing][guest] = None
        if guest.client is not None:
            self._by_client[guest.client] += 1
        return guest

    def leave(self, guest: Guest) -> None:
        """Let a connection go, and the next one in."""
        if guest.client is not None:
            self._by_client[guest.client] -= 1
            if not self._by_client[guest.client]:
                del self._by_client[guest.client]
        del self._guests[guest.standing][guest]
        self._place_next()

    def close(self) -> None:
        """Send away all that wait: no place will be given any more."""
        self._closed = True
        for guest in self._guests[Standing.WAITING]:
            guest.placed.set()

    async def place(self, guest: Guest) -> None:
        """Return once ``guest`` has a place.

        Raises:
            RequestRefused: it will not get one.
        """
        if guest.standing is Standing.PLACED:
            return
        if guest.is_over:
            raise refusal(ConnectionRefusal.ADDRESS_FULL)
        if guest.standing is Standing.RESERVED:
            if len(self._guests[Standing.WAITING]) >= MAX_WAITING or self._closed:
                raise refusal(ConnectionRefusal.FULL)
            self._move(guest, Standing.WAITING)
            self._place_next()
        while not guest.placed.is_set():
            self._make_room(Standing.PLACED, trio.current_time() - IDLE_SECONDS)
            with trio.move_on_after(LOOK_AGAIN_SECONDS):
                await guest.placed.wait()
        if guest in self._guests[Standing.WAITING]:
            raise refusal(ConnectionRefusal.FULL)

    def _standing(self, *, is_over: bool, local: bool) -> Standing | ConnectionRefusal:
        if not is_over and not self.is_full:
            return Standing.PLACED
        if local and (
            len(self._guests[Standing.RESERVED]) < RESERVED
            # What has been silent longest, for however short a time: it holds up a probe.
            or self._make_room(Standing.RESERVED, trio.current_time())
        ):
            return Standing.RESERVED
        if is_over:
            return ConnectionRefusal.ADDRESS_FULL
        if len(self._guests[Standing.WAITING]) < MAX_WAITING:
            return Standing.WAITING
        return ConnectionRefusal.FULL

    def _place_next(self) -> None:
        waiting = self._guests[Standing.WAITING]
        while waiting and not self.is_full:
            guest = next(iter(waiting))
            self._move(guest, Standing.PLACED)
            guest.placed.set()

    def _move(self, guest: Guest, standing: Standing) -> None:
        del self._guests[guest.standing][guest]
        guest.standing = standing
        self._guests[standing][guest] = None

    def _make_room(self, standing: Standing, before: float) -> bool:
        """End the connection that has asked for nothing longest, since ``before`` at the latest."""
        line = longest_idle((guest.line for guest in self._guests[standing]), before)
        if line is not None:
            line.give_way()
        return line is not None


def longest_idle(lines: Iterable[Line | None], before: float) -> Line | None:
    """Return the line on which nothing was asked for longest, if that was since ``before``."""
    idle = [
        (line.idle_since, line)
        for line in lines
        if line is not None and line.idle_since is not None and line.idle_since <= before
    ]
    return min(idle, key=lambda pair: pair[0])[1] if idle else None


def is_local(peer: str | None) -> bool:
    """Tell whether ``peer`` is an address of this host that no other can use; None is a socket."""
    if peer is None:
        return True
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def refusal(why: ConnectionRefusal) -> RequestRefused:
    """Return what a client is told whose connection is not served."""
    if why is ConnectionRefusal.ADDRESS_FULL:
        return RequestRefused(
            ErrorCode.RATE_LIMITED,
            "This address has as many connections as one may have; close some, or have "
            "http.max_connections_per_address raised.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    return RequestRefused(
        ErrorCode.QUEUE_FULL,
        "All connections of the daemon are taken; try again later.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
