"""Laying a conversation out for KoboldCPP, and making sure that it fits.

A prompt that is too long loses its beginning without a word, which is where the instructions are.
How long it is depends on the template that the server lays it out with. A server that counts
conversations says so exactly. Of another one the template is not known: what is counted there are
the texts with the markers of its default, and a margin is kept for those of any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.backends.tokens import most_prompt_tokens, template_margin
from ai_ticket_daemon.config.backends import Dialect

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.dialects import WireDialect
    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
    from ai_ticket_daemon.backends.tokens import Layout, TokenCounter
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
        self._takes_text = config.dialect is not Dialect.OPENAI_CHAT
        self._use_template = config.use_template
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
        if self._takes_text and self._use_template and Feature.TEMPLATE in self._probe.features:
            layout = await self._layout(request)
            if layout is not None:
                request = replace(request, laid_out=layout.prompt)
                await self._refuse_too_long(request, _Count(layout.tokens))
                return LaidOut(request, layout.tokens)
        context_tokens = await self._probe.context_tokens()
        at_most = most_prompt_tokens(request.messages, size_bytes) + request.sampling.max_tokens
        if context_tokens is None or at_most <= context_tokens:
            return LaidOut(request, None)
        count = await self._count(request)
        await self._refuse_too_long(request, count)
        return LaidOut(request, count.tokens)

    async def _refuse_too_long(self, request: GenerationRequest, count: _Count) -> None:
        context_tokens = await self._probe.context_tokens()
        max_tokens = request.sampling.max_tokens
        if context_tokens is None or count.tokens + count.margin + max_tokens <= context_tokens:
            return
        raise AttemptFailed(
            Observation(
                Seen.OVERFLOW,
                prompt_tokens=count.tokens,
                margin_tokens=count.margin,
                context_tokens=context_tokens,
                max_tokens=max_tokens,
            )
        )

    async def _count(self, request: GenerationRequest) -> _Count:
        if not self._takes_text and (layout := await self._layout(request)) is not None:
            return _Count(layout.tokens)
        tokens = await self._counter.count(self._dialect.prompt(request), begin=True)
        return _Count(tokens, 0 if self._takes_text else template_margin(request.messages))

    async def _layout(self, request: GenerationRequest) -> Layout | None:
        """Return the conversation in the server's template; None if it cannot tell that."""
        if Feature.COUNTS_MESSAGES not in self._probe.features:
            return None
        try:
            return await self._counter.lay_out(request.messages)
        except AttemptFailed as failure:
            # Not what its version should answer: it is treated as an older one.
            if _is_refusal(failure.observation):
                return None
            raise


def _is_refusal(observation: Observation) -> bool:
    return observation.seen in _NOT_COUNTED or observation.status in (400, 404, 500)
