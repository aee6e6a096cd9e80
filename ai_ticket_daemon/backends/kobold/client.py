"""The client of a KoboldCPP server, which knows its strange habits (`docs/koboldcpp.md`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.dialects import wire_dialect
from ai_ticket_daemon.backends.kobold.admission import Admission
from ai_ticket_daemon.backends.kobold.attempt import KoboldAttempt, KoboldServer
from ai_ticket_daemon.backends.kobold.context import ContextGuard
from ai_ticket_daemon.backends.kobold.loading import is_away, wake
from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
from ai_ticket_daemon.backends.kobold.usage import Bill
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.server_client import ServerClient
from ai_ticket_daemon.backends.tokens import TokenCounter
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.backends.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import (
        GenerationRequest,
        GenerationResult,
        ProbeResult,
    )
    from ai_ticket_daemon.backends.kobold.abort import AbortObserver
    from ai_ticket_daemon.backends.kobold.features import Features
    from ai_ticket_daemon.config.backends import ServerConfig


class KoboldClient(ServerClient):
    """Talks to one KoboldCPP; see :class:`BackendClient` for the methods.

    Args:
        config: the server.
        stall_seconds: the ``stall_timeout_seconds`` in force now.
        on_abort: is told of each abort.
    """

    def __init__(
        self, config: ServerConfig, *, stall_seconds: Callable[[], float], on_abort: AbortObserver
    ) -> None:
        dialect = wire_dialect(config.dialect)
        wire = Wire(
            config.url,
            password=config.password,
            connect_timeout_seconds=config.connect_timeout_seconds,
            keep_alive=False,
        )
        super().__init__(config, wire)
        counter = TokenCounter(wire)
        probe = KoboldProbe(wire, on_change=counter.forget)
        self._server = KoboldServer(
            config=config,
            dialect=dialect,
            wire=wire,
            probe=probe,
            counter=counter,
            admission=Admission(wire),
            bill=Bill(config, dialect, wire=wire, counter=counter, probe=probe),
            stall_seconds=stall_seconds,
            on_abort=on_abort,
        )
        self._context = ContextGuard(config, dialect, probe=probe, counter=counter)

    @property
    def features(self) -> Features:
        """What the server can do, as it was last seen; nothing before the first probe."""
        return self._server.probe.features

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """Make one generation and return it; see :meth:`BackendClient.generate`."""
        try:
            return await self._generate_loading(request, on_delta)
        except AttemptFailed as failure:
            raise self._error(failure.observation, request.messages) from failure

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """Look at the server's health; see :meth:`BackendClient.probe`."""
        try:
            return await self._server.probe.probe(identify=identify)
        except AttemptFailed as failure:
            raise self._error(failure.observation) from failure

    async def wake(self) -> bool:
        """Have the model loaded; see :meth:`BackendClient.wake`."""
        try:
            if not self._server.probe.loads_on_request:
                return await self._wake()
            await self._load()
        except AttemptFailed as failure:
            raise self._error(failure.observation) from failure
        return True

    async def _generate_loading(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None
    ) -> GenerationResult:
        knew = self._server.probe.loads_on_request
        try:
            return await self._generate(request, on_delta)
        except AttemptFailed as failure:
            # It has unloaded its model since it was last looked at: a request may load it.
            unloaded = failure.observation.seen is Seen.NO_MODEL and not knew
            if not unloaded or not self._server.probe.loads_on_request:
                raise
            return await self._generate(request, on_delta)

    async def _generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None
    ) -> GenerationResult:
        size_bytes = validate(request)
        if self._server.probe.loads_on_request:
            await self._load()
        laid_out = await self._context.lay_out(request, size_bytes)
        if self._server.bill.counts:  # One that batches is never idle, and still takes more.
            await self._server.admission.wait()
        attempt = KoboldAttempt(self._server, laid_out, on_delta)
        with self._running(attempt.generation):
            return await attempt.run()

    async def _load(self) -> None:
        """Have the model loaded, and look at what it is: how to ask it follows from that."""
        try:
            await self._wake()
        except AttemptFailed as failure:
            observation = failure.observation
            away = is_away(observation, self.features)
            raise AttemptFailed(replace(observation, reloading=away)) from failure
        await self._server.probe.probe(identify=True)
        if self._server.probe.loads_on_request:
            raise AttemptFailed.seen(Seen.NO_MODEL)

    async def _wake(self) -> bool:
        server = self._server
        timeout_seconds = self._config.load_timeout_seconds
        return await wake(server.wire, self.features, timeout_seconds=timeout_seconds)
