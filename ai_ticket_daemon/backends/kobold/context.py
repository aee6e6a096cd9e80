"""Laying a conversation out for KoboldCPP, and making sure that it fits.

A prompt that is too long loses its beginning without a word, which is where the instructions are.
How long it is depends on the template that the server lays it out with. A server that counts
conversations says so exactly. Of another one the template is not known: what is counted there are
the texts with the markers of its default, and a margin is kept for those of any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.backends.tokens import most_prompt_tokens, template_margin
from ai_ticket_daemon.config.backends import Dialect

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.dialects import WireDialect
    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
    from ai_ticket_daemon.backends.tokens import TokenCounter
    from ai_ticket_daemon.config.backends import ServerConfig

_NOT_COUNTED = frozenset({Seen.WRONG_SHAPE, Seen.NOT_JSON, Seen.NULL_BODY})


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A request as it is sent, and the tokens of its prompt; None if they need not be counted."""

    request: GenerationRequest
    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class _Count:
    """The tokens of a prompt, and how many more its markers may take."""

    tokens: int
    margin: int = 0


class ContextGuard:
    """Lets nothing pass to one server that it would cut.

    Args:
        config: the server.
        dialect: how it is spoken to.
        probe: knows what it is.
        counter: counts there.
    """

    def __init__(
        self,
        config: ServerConfig,
        dialect: WireDialect,
        *,
        probe: KoboldProbe,
        counter: TokenCounter,
    ) -> None:
        self._lays_out = config.dialect is Dialect.OPENAI_CHAT
        self._dialect = dialect
        self._probe = probe
        self._counter = counter

    async def lay_out(self, request: GenerationRequest, size_bytes: int) -> LaidOut:
        """Return the request as it can be sent.

        Args:
            request: what is to be made.
            size_bytes: the length of its messages together.

        Raises:
            AttemptFailed: it does not fit, or the server does not answer sensibly.
        """
        context_tokens = await self._probe.context_tokens()
        max_tokens = request.sampling.max_tokens
        at_most = most_prompt_tokens(request.messages, size_bytes) + max_tokens
        if context_tokens is None or at_most <= context_tokens:
            return LaidOut(request, None)
        count = await self._count(request)
        if count.tokens + count.margin + max_tokens > context_tokens:
            raise AttemptFailed(
                Observation(
                    Seen.OVERFLOW,
                    prompt_tokens=count.tokens,
                    margin_tokens=count.margin,
                    context_tokens=context_tokens,
                    max_tokens=max_tokens,
                )
            )
        return LaidOut(request, count.tokens)

    async def _count(self, request: GenerationRequest) -> _Count:
        if self._lays_out and Feature.COUNTS_MESSAGES in self._probe.features:
            try:
                return _Count((await self._counter.lay_out(request.messages)).tokens)
            except AttemptFailed as failure:
                # Not what its version should answer: it is counted as for an older one.
                if not _is_refusal(failure.observation):
                    raise
        tokens = await self._counter.count(self._dialect.prompt(request), begin=True)
        return _Count(tokens, template_margin(request.messages) if self._lays_out else 0)


def _is_refusal(observation: Observation) -> bool:
    return observation.seen in _NOT_COUNTED or observation.status in (400, 404, 500)
