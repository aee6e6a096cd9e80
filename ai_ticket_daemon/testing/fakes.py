"""Stand-ins that implement the real ports, with no sockets, for tests that own the clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.generation import GenerationResult, ProbeResult
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.config.backends import ServerConfig


@dataclass(slots=True, eq=False)
class FakeClient:
    """A backend client that answers after ``seconds`` with the last message, upper case.

    ``answers`` holds what the next generations raise instead, first one first; ``probe_error``
    what probes raise until it is set to None.
    """

    config: ServerConfig
    seconds: float = 1.0
    answers: list[Exception | None] = field(default_factory=list)
    probe_error: Exception | None = None
    probe_result: ProbeResult = field(default_factory=lambda: ProbeResult(model="fake"))
    prompts: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    aborted: int = 0
    doubts: int = 0
    wakes: int = 0
    can_wake: bool = True
    wake_error: Exception | None = None

    @property
    def name(self) -> str:
        """The server's name in the conf file."""
        return self.config.name

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """Answer after ``seconds``, word by word if streamed."""
        prompt = request.messages[-1].content
        self.prompts.append(prompt)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.sleep(self.seconds / 2)
            words = prompt.upper().split(" ")
            for index, word in enumerate(words):
                request.received.note(index + 1)
                if on_delta is not None:
                    on_delta(word if index == 0 else f" {word}")
                await trio.sleep(self.seconds / 2 / len(words))
                if self.answers and (error := self.answers.pop(0)) is not None:
                    raise error
        except trio.Cancelled:
            self.aborted += 1
            raise
        finally:
            self.running -= 1
        return GenerationResult(" ".join(words), "stop", Usage(len(words), len(words)))

    async def wake(self) -> bool:
        """Count it; raise ``wake_error``."""
        self.wakes += 1
        await trio.lowlevel.checkpoint()
        if self.wake_error is not None:
            raise self.wake_error
        return self.can_wake

    def doubt(self) -> None:
        """Count it."""
        self.doubts += 1

    async def probe(self, *, identify: bool = False) -> ProbeResult:  # noqa: ARG002
        """Answer, or raise ``probe_error``."""
        await trio.lowlevel.checkpoint()
        if self.probe_error is not None:
            raise self.probe_error
        return self.probe_result

    async def aclose(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()
