"""What a finished generation on KoboldCPP cost and why it ended, which not each version tells.

The server's own ``usage`` is taken where it is true. Elsewhere counting may not cost more than it
is worth: a generation that took no time worth mentioning gets an estimate. For all others the
server's statistics give the tokens it wrote, and those it read if it counts them; else one call
counts those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.kobold.perf import STOPPED_BY_STRING, Perf, read_perf
from ai_ticket_daemon.backends.observation import AttemptFailed
from ai_ticket_daemon.backends.tokens import estimate_length, estimate_tokens
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.generation_stream import Completion
    from ai_ticket_daemon.backends.tokens import TokenCounter
    from ai_ticket_daemon.backends.transport.wire import Wire

WORTH_COUNTING_SECONDS = 0.05
# The server holds its lock for 50 ms after an answer. Until then, "the last generation" is ours.
_STATISTICS_ARE_OURS_SECONDS = 0.035
_SAME_FOR_ALL = (100, 100)


async def settle(
    completion: Completion,
    request: GenerationRequest,
    *,
    wire: Wire,
    counter: TokenCounter,
    prompt: str,
    prompt_tokens: int | None,
    took_seconds: float,
    ended_at: float,
) -> tuple[str, Usage]:
    """Return the finish reason and the usage of a generation; fails over nothing.

    Args:
        completion: what came over the wire.
        request: what was asked.
        wire: leads to the server.
        counter: counts there.
        prompt: the text the server fed its model.
        prompt_tokens: its tokens, if they are known already.
        took_seconds: from sending the request to the end of the answer.
        ended_at: when the answer ended, on trio's clock.
    """
    told = true_usage(completion)
    worth_counting = told is None and took_seconds >= WORTH_COUNTING_SECONDS
    reason_unknown = completion.finish_reason == "length" and not completion.stopped
    perf: Perf | None = None
    if worth_counting or (reason_unknown and request.sampling.stop):
        perf = await statistics(wire, ended_at)
    reason = completion.finish_reason
    if completion.stopped or (
        reason_unknown and perf is not None and perf.last_stop_reason == STOPPED_BY_STRING
    ):
        reason = "stop"
    if told is not None:
        return reason, told
    counted = perf is not None and (perf.last_token_count > 0 or completion.was_empty)
    if counted and perf is not None and perf.last_input_count:
        prompt_tokens = perf.last_input_count
    if worth_counting:
        try:
            if prompt_tokens is None:
                prompt_tokens = await counter.count(prompt, begin=True)
            if counted and perf is not None:
                return reason, Usage(prompt_tokens, perf.last_token_count)
            # The tags around the thinking are gone.
            written = await counter.count(completion.reasoning + completion.text, begin=False)
            return reason, Usage(prompt_tokens, written, estimated=bool(completion.reasoning))
        except AttemptFailed:
            pass  # The completion is there; its bill is not worth losing it.
    if prompt_tokens is None:
        prompt_tokens = estimate_tokens(prompt)
    limit = request.sampling.max_tokens
    written = limit if reason == "length" else min(limit, estimate_length(completion.characters))
    return reason, Usage(prompt_tokens, written, estimated=True)


def true_usage(completion: Completion) -> Usage | None:
    """Return what the server says of the usage, if that can be true.

    Old versions say the same of every completion.
    """
    usage = completion.usage
    if usage is None or (usage.prompt_tokens, usage.completion_tokens) == _SAME_FOR_ALL:
        return None
    if usage.prompt_tokens == 0 or (usage.completion_tokens == 0 and not completion.was_empty):
        return None
    return usage


async def statistics(wire: Wire, ended_at: float) -> Perf | None:
    """Return the server's statistics of the generation that ended just now; None if too late."""
    try:
        perf = await read_perf(wire)
    except AttemptFailed:
        return None
    late = trio.current_time() - ended_at > _STATISTICS_ARE_OURS_SECONDS
    return None if late else perf
