"""Fault injection for drills: an isolated server is as unreachable to this daemon as if unplugged.

New requests and probes are refused, generations that run are cancelled, and the ordinary rules do
the rest. It ends by itself: no task has to run for that, and no operator has to come back.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.observation import Aftermath, Observation, Seen
from ai_ticket_daemon.backends.wrappers.wrapper import ClientWrapper, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ai_ticket_daemon.backends.generation import (
        BackendClient,
        GenerationRequest,
        GenerationResult,
        ProbeResult,
    )

LONGEST_SECONDS = 600.0


class FaultInjection:
    """Which servers are isolated, and until when.

    Args:
        others_usable: tells whether any server but the named ones is usable; if none is, this ends.
        on_end: told why it ended.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        others_usable: Callable[[Collection[str]], bool],
        on_end: Callable[[str], None],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._others_usable = others_usable
        self._on_end = on_end
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._until = 0.0
        self._running: set[tuple[str, trio.CancelScope]] = set()

    def isolate(self, names: Collection[str], seconds: float) -> None:
        """Isolate the servers ``names`` for ``seconds``; what runs there is cancelled at once."""
        self._names = frozenset(names)
        self._until = self._clock() + min(seconds, LONGEST_SECONDS)
        for name, scope in self._running:
            if name in self._names:
                scope.cancel()

    def rejoin(self, why: str) -> None:
        """Let all servers be reached again."""
        if self._names:
            self._names = frozenset()
            self._on_end(why)

    @property
    def names(self) -> frozenset[str]:
        """The servers that are isolated now."""
        if self._names and self._clock() >= self._until:
            self.rejoin("its time is over")
        if self._names and not self._others_usable(self._names):
            self.rejoin("no other server is usable")
        return self._names

    @property
    def left_seconds(self) -> float:
        """How long it goes on from now, unless ended; 0 if no server is isolated."""
        return self._until - self._clock() if self.names else 0.0

    @contextmanager
    def cancelling(self, name: str, scope: trio.CancelScope) -> Iterator[None]:
        """Cancel ``scope`` if the server is isolated during the block."""
        entry = (name, scope)
        self._running.add(entry)
        try:
            yield
        finally:
            self._running.discard(entry)


class FaultInjectingClient(ClientWrapper):
    """A client whose server can be isolated."""

    def __init__(self, client: BackendClient, fault_injection: FaultInjection) -> None:
        super().__init__(client)
        self._fault_injection = fault_injection

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """See :meth:`BackendClient.generate`; isolation leaves the slot of the server free, too."""
        self._refuse()
        delivery = Delivery(on_delta)
        with trio.CancelScope() as scope, self._fault_injection.cancelling(self.name, scope):
            return await self._client.generate(request, delivery.on_delta)
        broken = Observation(Seen.BROKEN, aftermath=Aftermath.GONE, passed_on=delivery.begun)
        raise classify(self.name, broken)

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """See :meth:`BackendClient.probe`."""
        self._refuse()
        return await self._client.probe(identify=identify)

    def _refuse(self) -> None:
        if self.name in self._fault_injection.names:
            raise classify(self.name, Observation(Seen.UNREACHABLE))
