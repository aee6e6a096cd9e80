"""What is asked of a backend and what it gives back, in no particular dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ai_ticket_daemon.backends.software import NOTHING_TOLD, Software

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.backends.observation import SlotEnd
    from ai_ticket_daemon.events.event import Message, Sampling
    from ai_ticket_daemon.events.outcome import Usage
    from ai_ticket_daemon.events.reasoning import ReasoningEffort


@dataclass(slots=True)
class Received:
    """How much of a generation has come so far: the client notes it, whoever asked reads it.

    ``tokens`` None: some may have been made, and nobody knows how many. ``estimated`` is True where
    they follow from the length of the text. ``slot``: what became of the server's slot, if the
    generation was given up.
    """

    tokens: int | None = 0
    estimated: bool = False
    slot: SlotEnd | None = None

    def note(self, tokens: int | None, *, estimated: bool = False) -> None:
        """Set how many there are."""
        self.tokens, self.estimated = tokens, estimated


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation to be made.

    ``stream`` asks the backend for its text as it is made. ``reasoning`` passes the thinking on as
    well. ``headers`` go along with the request, such as those of its trace. ``received`` is kept up
    to date by the client.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool = False
    reasoning: bool = False
    reasoning_effort: ReasoningEffort | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    received: Received = field(default_factory=Received, compare=False)
    laid_out: str | None = field(default=None, repr=False)
    """The conversation in the server's template, for an API that takes a text."""


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What a backend made. ``finish_reason`` is ``stop`` or ``length``.

    ``reasoning`` is what the model thought before, and no part of ``text``.
    """

    text: str = field(repr=False)
    finish_reason: str
    usage: Usage
    reasoning: str = field(default="", repr=False)


class BackendClient(Protocol):
    """Talks to one server; knows its dialect and its strange habits."""

    @property
    def name(self) -> str:
        """The server's name in the conf file."""

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """Make one generation and return it.

        When cancelled, the server is made to stop generating (bounded, shielded) before
        ``Cancelled`` goes on, so that the slot is free when this returns or raises.

        Args:
            request: what to generate.
            on_delta: called with each piece of text as it arrives; only if ``request.stream``.
                If ``request.reasoning``, also with each :class:`ReasoningText`. Must not block.

        Raises:
            BackendError: the attempt failed; the error says how to treat it.
        """

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """Look at the server's health without taking a generation slot.

        Args:
            identify: read the model anew, even if it can hardly have changed.

        Raises:
            BackendError: it could not be reached or did not make sense.
        """

    async def wake(self) -> bool:
        """Have a server that has unloaded its model load it; False if it does not know how.

        Raises:
            BackendError: it failed, or took too long.
        """

    def doubt(self) -> None:
        """The server has fallen silent: have a look at what runs there, and give up what is lost.

        A generation that gets on, or whose server answers after all, is left alone.
        """

    async def aclose(self) -> None:
        """Close idle connections, if any; generations that run go on."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a server said of itself. ``None``: this kind of server does not tell.

    ``has_model`` False: it has no model loaded. ``busy``: a generation runs there. ``waiting``:
    requests in the server's own queue. ``uptime_seconds``, ``generations`` (how many it has made):
    smaller than before means it restarted. ``credential_accepted`` False: the configured credential
    is wrong. ``loads_on_request``: it has no model loaded, and loads one for the next request.
    ``software``: what runs there.
    """

    model: str | None
    context_tokens: int | None = None
    busy: bool | None = None
    waiting: int | None = None
    uptime_seconds: float | None = None
    generations: int | None = None
    credential_accepted: bool = True
    has_model: bool = True
    loads_on_request: bool = False
    prompt_tokens_per_second: float | None = None
    written_tokens_per_second: float | None = None
    """How fast it was at its last generation."""
    last_prompt_tokens: int | None = None
    """How long the prompt of that was."""
    software: Software = NOTHING_TOLD
