"""What a finished generation on KoboldCPP cost and why it ended, which not each version tells.

The server's own ``usage`` is taken where it is true. Elsewhere counting may not cost more than it
is worth: a generation that took no time worth mentioning gets an estimate. For all others the
server's statistics give the tokens it wrote, and those it read if it counts them; else one call
counts those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.finish import LENGTH, STOP
from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.backends.kobold.perf import STOPPED_BY_STRING, Perf, read_perf
from ai_ticket_daemon.backends.observation import AttemptFailed
from ai_ticket_daemon.backends.tokens import estimate_tokens
from ai_ticket_daemon.backends.usage import (
    can_be_read,
    can_be_written,
    estimate_usage,
    true_usage,
)
from ai_ticket_daemon.config.backends import Dialect
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.dialects import WireDialect
    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.generation_stream import Completion
    from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
    from ai_ticket_daemon.backends.tokens import TokenCounter
    from ai_ticket_daemon.backends.transport.wire import Wire
    from ai_ticket_daemon.config.backends import ServerConfig

WORTH_COUNTING_SECONDS = 0.05
# An old server holds its lock for 50 ms after an answer. Until then, "the last generation" is ours.
_STATISTICS_ARE_OURS_SECONDS = 0.035


class Bill:
    """Makes the bills of one server.

    Args:
        config: the server.
        dialect: how it is spoken to.
        wire: leads to it.
        counter: counts there.
        probe: knows what it is.
    """

    def __init__(
        self,
        config: ServerConfig,
        dialect: WireDialect,
        *,
        wire: Wire,
        counter: TokenCounter,
        probe: KoboldProbe,
    ) -> None:
        self._lays_out = config.dialect is Dialect.OPENAI_CHAT
        self._shares = config.max_in_flight > 1
        self._dialect = dialect
        self._wire = wire
        self._counter = counter
        self._probe = probe

    async def settle(
        self,
        completion: Completion,
        request: GenerationRequest,
        *,
        prompt_tokens: int | None,
        took_seconds: float,
        ended_at: float,
        began_at: float | None,
    ) -> tuple[str, Usage]:
        """Return the finish reason and the usage of a generation; fails over nothing.

        Args:
            completion: what came over the wire.
            request: what was asked.
            prompt_tokens: the tokens of its prompt, if they are known already.
            took_seconds: from sending the request to the end of the answer.
            ended_at: when the answer ended, on trio's clock.
            began_at: when its first text had come, if that was seen.
        """
        limit = request.sampling.max_tokens
        trusted = Feature.TRUE_USAGE in self._probe.features
        told = true_usage(completion, max_tokens=limit, trusted=trusted)
        worth_counting = told is None and took_seconds >= WORTH_COUNTING_SECONDS
        reason_unknown = completion.finish_reason == LENGTH and not completion.stopped
        perf: Perf | None = None
        if (worth_counting or (reason_unknown and request.sampling.stop)) and self.counts:
            perf = await statistics(self._wire, ended_at, began_at)
        if perf is not None and not can_be_written(
            perf.last_token_count, completion, max_tokens=limit
        ):
            perf = None  # They stand still, or are of something else.
        reason = completion.finish_reason
        if completion.stopped or (
            reason_unknown and perf is not None and perf.last_stop_reason == STOPPED_BY_STRING
        ):
            reason = STOP
        if told is not None:
            return reason, told
        prompt = self._dialect.prompt(request)
        if worth_counting:
            try:
                return reason, await self._counted(completion, perf, prompt, prompt_tokens)
            except AttemptFailed:
                pass  # The completion is there; its bill is not worth losing it.
        if prompt_tokens is None:
            prompt_tokens = estimate_tokens(prompt)
        return reason, estimate_usage(
            completion, reason, prompt_tokens=prompt_tokens, max_tokens=limit
        )

    @property
    def counts(self) -> bool:
        """Whether the server's statistics can be those of the last generation.

        One that makes several at once keeps none of them.
        """
        return not (self._shares and Feature.PARALLEL in self._probe.features)

    async def _counted(
        self, completion: Completion, perf: Perf | None, prompt: str, prompt_tokens: int | None
    ) -> Usage:
        read = None if perf is None else perf.last_input_count
        if perf is not None and read is not None and can_be_read(read):
            return Usage(read, perf.last_token_count)
        is_exact = self._knows_layout(prompt_tokens)
        if prompt_tokens is None:
            prompt_tokens = await self._counter.count(prompt, begin=True)
        if perf is not None:
            return Usage(prompt_tokens, perf.last_token_count, estimated=not is_exact)
        # The marks around the thinking are gone.
        is_exact = is_exact and not completion.reasoning
        text = completion.reasoning + completion.text
        written = await self._counter.count(text, begin=False)
        return Usage(prompt_tokens, written, estimated=not is_exact)

    def _knows_layout(self, prompt_tokens: int | None) -> bool:
        """Whether a prompt was counted, or would be, as the server lays it out."""
        features = self._probe.features
        if not self._lays_out or features.default_layout:
            return True
        return prompt_tokens is not None and Feature.COUNTS_MESSAGES in features


async def statistics(wire: Wire, ended_at: float, began_at: float | None) -> Perf | None:
    """Return the server's statistics of a generation; None if they may be those of another one.

    Args:
        wire: leads to the server.
        ended_at: when its answer ended, on trio's clock.
        began_at: when its first text had come, if it was seen to come. Where no generation has got
            the lock since, this one was the last.
    """
    try:
        perf = await read_perf(wire)
    except AttemptFailed:
        return None
    now = trio.current_time()
    was_last = began_at is not None and now - perf.lock_age_seconds <= began_at
    return perf if was_last or now - ended_at <= _STATISTICS_ARE_OURS_SECONDS else None
