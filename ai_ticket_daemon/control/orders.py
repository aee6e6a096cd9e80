"""Standing orders: an actor that carries out what an operator ordered for all daemons of a store.

An order is kept in the store. Every daemon that shares it looks there, does what is new to it, and
says that it has; one that is started later does what still stands. An order that is given to one
daemon alone is done at once and written nowhere: it is over when an order for all comes, or the
process ends.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.store.port import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.control.history import PoolHistory
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.store.port import EventStore

LOOK_SECONDS = 0.5
"""How late an order for all is noticed by the others, at the most."""
HEARD_SECONDS = 3.0
"""How long an order waits for the others to say that they have done it."""
STORE_SECONDS = 10.0
_LOOK_FOR_HEARD_SECONDS = 0.05


class Name(StrEnum):
    """What can be ordered for all daemons of a store."""

    PAUSED = "paused"
    DRAINING = "draining"
    PINNED = "pinned"
    FAILBACK = "failback"
    """Done once by each daemon that lives then."""


HOLDING = frozenset({Name.PAUSED, Name.DRAINING})


@dataclass(frozen=True, slots=True)
class Member:
    """One of the daemons that share a store, as it says itself.

    ``heard``: when each order was given that it did last, by the order's name.
    """

    pid: int
    socket: str | None
    version: str
    heard: dict[str, float] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, object]:
        """What an operator is told of it."""
        return {"pid": self.pid, "socket": self.socket, "version": self.version}


_decode = msgspec.json.Decoder(Member).decode


class StandingOrders:
    """Keeps the orders of the store in force here.

    ``given`` holds them by name, as they were seen last.

    Args:
        store: keeps the orders.
        pool: does those about servers.
        pipeline: does those about events.
        history: is told of what was ordered, for those who ask why an event took so long.
        me: what this daemon says of itself.
        stopping: whether the daemon is on its way out.
        log: is told of what others ordered.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        store: EventStore,
        pool: BackendPool,
        pipeline: AsyncInferencePipeline,
        history: PoolHistory,
        me: Member,
        stopping: Callable[[], bool],
        log: FilteringBoundLogger,
        clock: Clock,
    ) -> None:
        self._store = store
        self._pool = pool
        self._pipeline = pipeline
        self._history = history
        self._me = me
        self._stopping = stopping
        self._log = log
        self._clock = clock
        self._said = False
        self.given: Mapping[str, Order] = {}

    @property
    def missing(self) -> str | None:
        """The server that all are to use, if it is not in the conf file here."""
        order = self.given.get(Name.PINNED)
        server = "" if order is None else order.value
        return server if server and server not in {b.name for b in self._pool} else None

    async def restore(self) -> None:
        """Do what stands already; to be called before anything is started.

        In a store without an order about it, the pin that the pool has recalled becomes one.
        """
        try:
            with trio.fail_after(STORE_SECONDS):
                if Name.PINNED not in await self._store.orders():
                    pinned = Order(self._pool.active.pinned or "", self._clock.now())
                    await self._store.order(Name.PINNED, pinned)
                await self._look(starting=True)
        except (StoreUnavailable, trio.TooSlowError) as error:
            self._log.warning("orders_not_read", reason=str(error))
        standing = {name: order.value for name, order in self.given.items() if order.value}
        standing.pop(Name.FAILBACK, None)
        if standing:
            self._log.warning("orders_in_force", **standing)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what is ordered from now on; runs until cancelled."""
        task_status.started()
        while True:
            with suppress(StoreUnavailable, trio.TooSlowError):  # said once by the store itself
                with trio.fail_after(STORE_SECONDS):
                    await self._look()
            await trio.sleep(LOOK_SECONDS)

    async def members(self) -> list[Member]:
        """Return the daemons that share the store and live, this one among them."""
        found = []
        for _, about in sorted((await self._store.members()).items()):
            with suppress(msgspec.MsgspecError):  # of another version
                found.append(_decode(about))
        return found

    async def give(self, name: Name, value: str, *, here: bool) -> dict[str, object]:
        """Order ``value``, "" to take it back; return whom it reached.

        Args:
            name: what is ordered.
            value: for ``pinned`` the server; otherwise any text.
            here: for this daemon alone.

        Raises:
            StoreUnavailable: it is an order for all, and could not be kept.
        """
        at = self._clock.now()
        order = Order(value, at, holds=bool(value) and name in HOLDING)
        if here:
            self._do(name, order, for_all=False)
            return {"scope": "here", "reached": [self._me.told], "not_reached": []}
        await self._store.order(name, order)
        self._history.note(_words(name, order))
        self.given = {**self.given, name: order}
        self._do(name, order, for_all=True)
        await self._say()
        reached, silent = await self._heard(name, at)
        return {
            "scope": "all daemons of the store",
            "reached": [member.told for member in reached],
            "not_reached": [member.told for member in silent],
        }

    async def _heard(self, name: Name, at: float) -> tuple[list[Member], list[Member]]:
        """Wait until all have heard; return who has, and who has not in time."""
        until = trio.current_time() + HEARD_SECONDS
        while True:
            members = await self.members()
            silent = [member for member in members if member.heard.get(name, 0.0) < at]
            if not silent or trio.current_time() >= until:
                return [member for member in members if member not in silent], silent
            await trio.sleep(_LOOK_FOR_HEARD_SECONDS)

    async def _look(self, *, starting: bool = False) -> None:
        before, self.given = self.given, await self._store.orders()
        new = {n: order for n, order in self.given.items() if before.get(n) != order}
        for name, order in new.items():
            if name not in set(Name):
                continue  # of a later version
            if starting and name != Name.PINNED and (not order.value or name == Name.FAILBACK):
                self._me.heard[name] = order.at
                continue
            self._do(Name(name), order, for_all=True)
            if not starting:
                self._log.warning("order_heard", order=name, value=order.value)
        if new or not self._said:
            await self._say()

    async def _say(self) -> None:
        await self._store.sit(msgspec.json.encode(self._me).decode())
        self._said = True

    def _do(self, name: Name, order: Order, *, for_all: bool) -> None:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(order.at + self._clock.ahead))
        scope = "all daemons of this store" if for_all else "this daemon only"
        because = f"by an operator since {since}, {scope}"
        match name:
            case Name.PAUSED if order.value:
                self._pipeline.pause(f"paused {because}")
            case Name.PAUSED:
                self._pipeline.unpause()
            case Name.DRAINING if order.value:
                if not self._stopping():
                    self._pipeline.refuse_new(f"draining {because}")
            case Name.DRAINING:
                if not self._stopping():
                    self._pipeline.accept_again()
            case Name.PINNED:
                self._pin(order.value)
            case Name.FAILBACK:
                self._pool.failback()
        if for_all:
            self._me.heard[name] = order.at

    def _pin(self, server: str) -> None:
        if not server:
            self._pool.unpin()
        elif server in {backend.name for backend in self._pool}:
            self._pool.pin(server)


def this_process(socket: str | None, version: str) -> Member:
    """Return what this process says of itself before it has heard anything."""
    return Member(os.getpid(), socket, version)


def _words(name: Name, order: Order) -> str:
    match name:
        case Name.PINNED if order.value:
            return f"an operator pinned {order.value} for all daemons of this store"
        case Name.PINNED:
            return "an operator let the rules decide who serves, for all daemons of this store"
        case Name.FAILBACK:
            return "an operator asked the primaries back, for all daemons of this store"
    done = {Name.PAUSED: ("paused", "unpaused"), Name.DRAINING: ("drained", "resumed")}[name]
    return f"an operator {done[not order.value]} all daemons of this store"
