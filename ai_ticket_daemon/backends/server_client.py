"""What the clients of all kinds of servers have in common."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.text.quoting import quotable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ai_ticket_daemon.backends.failure import BackendError
    from ai_ticket_daemon.backends.generation_stream import GenerationStream
    from ai_ticket_daemon.backends.observation import Observation
    from ai_ticket_daemon.backends.transport.wire import Wire
    from ai_ticket_daemon.config.backends import ServerConfig
    from ai_ticket_daemon.events.event import Message


class ServerClient:
    """A client of one server; subclasses add ``generate``, ``probe`` and ``wake``.

    Args:
        config: the server.
        wire: leads to it.
    """

    def __init__(self, config: ServerConfig, wire: Wire) -> None:
        self._config = config
        self._wire = wire
        self._generations: set[GenerationStream] = set()

    @property
    def name(self) -> str:
        """The server's name in the conf file."""
        return self._config.name

    def doubt(self) -> None:
        """Look at what runs there; see :meth:`BackendClient.doubt`."""
        for generation in self._generations:
            generation.doubt()

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._wire.aclose()

    @contextmanager
    def _running(self, generation: GenerationStream) -> Iterator[None]:
        """Have a generation looked at when the server is in doubt, as long as the block lasts."""
        self._generations.add(generation)
        try:
            yield
        finally:
            self._generations.discard(generation)

    def _error(self, observation: Observation, prompt: Iterable[Message] = ()) -> BackendError:
        """Return what an observation means, in words that repeat neither prompt nor credential."""
        texts = (message.content for message in prompt)
        return classify(self.name, quotable(observation, self._config.password, texts))
