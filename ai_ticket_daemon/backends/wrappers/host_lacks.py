"""Tells a server's client that failed from a host that could not let it work.

The wire tells most of it itself; but memory can be lacking anywhere. Whatever it was, from here on
it is a failure that is neither the server's nor the event's, and it is noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.failure import BackendError, RetryRule
from ai_ticket_daemon.backends.observation import Observation, Seen
from ai_ticket_daemon.backends.wrappers.wrapper import ClientWrapper, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import (
        BackendClient,
        GenerationRequest,
        GenerationResult,
        ProbeResult,
    )
    from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource

WHERE = "backends"


class HostAwareClient(ClientWrapper):
    """A client that says so if this host lacks something."""

    def __init__(self, client: BackendClient, exhaustion: Exhaustion) -> None:
        super().__init__(client)
        self._exhaustion = exhaustion

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """See :meth:`BackendClient.generate`."""
        delivery = Delivery(on_delta)
        try:
            return await self._client.generate(request, delivery.on_delta)
        except Exception as error:  # noqa: BLE001 - raised again, under its right name
            self._raise(error, passed_on=delivery.begun)

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """See :meth:`BackendClient.probe`."""
        try:
            return await self._client.probe(identify=identify)
        except Exception as error:  # noqa: BLE001 - raised again, under its right name
            self._raise(error, passed_on=False)

    def _raise(self, error: Exception, *, passed_on: bool) -> NoReturn:
        known = isinstance(error, BackendError)
        if isinstance(error, BackendError) and error.failure.retry is not RetryRule.HOST:
            raise error
        lacking = self._exhaustion.meets(error, WHERE)
        if lacking is None or (known and not passed_on):
            raise error
        raise not_asked(self.name, lacking, passed_on=passed_on) from error


def not_asked(backend: str, lacking: Resource, *, passed_on: bool) -> BackendError:
    """Return the failure of an attempt for which this host lacked something.

    Nothing is known of the server then, and another attempt may be made: but not if a part of the
    text was ``passed_on``.
    """
    return classify(backend, Observation(Seen.HOST_EXHAUSTED, lacking=lacking, passed_on=passed_on))
