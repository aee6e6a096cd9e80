"""What all clients around a client have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import BackendClient


class Delivery:
    """Gives the text of one generation to the caller, and knows whether any was given.

    Args:
        on_delta: the caller's; None if the caller waits for the whole text.
    """

    def __init__(self, on_delta: Callable[[str], None] | None) -> None:
        self._give = on_delta
        self.begun = False
        """Whether the caller was given a part of the text."""

    @property
    def on_delta(self) -> Callable[[str], None] | None:
        """What the client has to call with each piece; None if the caller waits for the whole."""
        return None if self._give is None else self._deliver

    def _deliver(self, text: str) -> None:
        assert self._give is not None  # noqa: S101 - not called otherwise
        self.begun = True
        self._give(text)


class ClientWrapper:
    """A client around another client; subclasses add ``generate`` and ``probe``."""

    def __init__(self, client: BackendClient) -> None:
        self._client = client

    @property
    def name(self) -> str:
        """The server's name in the conf file."""
        return self._client.name

    async def wake(self) -> bool:
        """See :meth:`BackendClient.wake`."""
        return await self._client.wake()

    def doubt(self) -> None:
        """See :meth:`BackendClient.doubt`."""
        self._client.doubt()

    async def aclose(self) -> None:
        """See :meth:`BackendClient.aclose`."""
        await self._client.aclose()
