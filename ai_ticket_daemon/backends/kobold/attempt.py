"""One attempt at a generation on a KoboldCPP: sent, watched, ended for good, and billed."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.dialects.kobold import PLACEHOLDERS_STAY
from ai_ticket_daemon.backends.finish import LENGTH
from ai_ticket_daemon.backends.generation import GenerationResult
from ai_ticket_daemon.backends.generation_stream import GenerationStream
from ai_ticket_daemon.backends.generation_watch import Limits, carry_out
from ai_ticket_daemon.backends.kobold.abort import AbortEnd, AbortReason, abort_once
from ai_ticket_daemon.backends.kobold.admission import BUSY_STATUS
from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.backends.kobold.guard import KoboldGuard
from ai_ticket_daemon.backends.kobold.loading import is_away, may_reload
from ai_ticket_daemon.backends.kobold.perf import find_aftermath
from ai_ticket_daemon.backends.kobold.reading import Reading, cautious_tokens
from ai_ticket_daemon.backends.kobold.stream_end import find_end
from ai_ticket_daemon.backends.kobold.unfinished import part_unfinished
from ai_ticket_daemon.backends.observation import Aftermath, AttemptFailed, Observation, Seen
from ai_ticket_daemon.config.backends import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.dialects import WireDialect
    from ai_ticket_daemon.backends.generation_stream import Completion
    from ai_ticket_daemon.backends.kobold.abort import AbortObserver
    from ai_ticket_daemon.backends.kobold.admission import Admission
    from ai_ticket_daemon.backends.kobold.context import LaidOut
    from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
    from ai_ticket_daemon.backends.kobold.usage import Bill
    from ai_ticket_daemon.backends.tokens import TokenCounter
    from ai_ticket_daemon.backends.transport.wire import Wire
    from ai_ticket_daemon.config.backends import ServerConfig

_BROKEN_OFF = frozenset({Seen.NO_BYTE, Seen.BROKEN, Seen.CUT})
# A stream was given up, and the generation behind it may still run.
_GIVEN_UP = frozenset(
    {Seen.NOT_JSON, Seen.NOT_UTF8, Seen.ENCODED, Seen.WRONG_SHAPE, Seen.TOO_LARGE, Seen.FILTERED}
)
_UNAUTHORISED = (401, 403)


@dataclass(frozen=True, slots=True)
class KoboldServer:
    """One server, and what all attempts there share."""

    config: ServerConfig
    dialect: WireDialect
    """How it is spoken to."""
    wire: Wire
    """Leads to it."""
    probe: KoboldProbe
    """Knows what it is."""
    counter: TokenCounter
    """Counts tokens there."""
    admission: Admission
    """Knows whether it lets anybody wait."""
    bill: Bill
    """Knows what a generation cost there."""
    stall_seconds: Callable[[], float]
    """The ``stall_timeout_seconds`` in force now."""
    on_abort: AbortObserver
    """Is told of each abort."""

    @property
    def parts_thinking(self) -> bool:
        """Whether it parts what it answers to a chat."""
        chats = self.config.dialect is Dialect.OPENAI_CHAT
        return chats and Feature.REASONING in self.probe.features


class KoboldAttempt:
    """One attempt at a generation.

    Args:
        server: where.
        laid_out: what is to be made.
        on_delta: is given the text as it comes, if a stream was asked for.
    """

    def __init__(
        self, server: KoboldServer, laid_out: LaidOut, on_delta: Callable[[str], None] | None
    ) -> None:
        self._server = server
        self._batches = not server.bill.counts
        thinks = server.parts_thinking and Feature.THINKS in server.probe.features
        wants_stream = laid_out.request.stream
        # In a batch only a stream shows that it gets on, and only a closed one frees its slot.
        self._request = replace(laid_out.request, stream=wants_stream or self._batches or thinks)
        self._prompt_tokens = laid_out.prompt_tokens
        # A key of its own for every attempt: the server may remember an abort for a used one.
        self._genkey = secrets.token_hex(16)
        body = server.dialect.body(self._request)
        self.generation = GenerationStream(
            server.wire,
            server.dialect,
            self._request,
            json.dumps({**body, **PLACEHOLDERS_STAY, "genkey": self._genkey}).encode(),
            on_delta=on_delta if wants_stream else None,
        )

    async def run(self) -> GenerationResult:
        """Make the generation and return it; nothing is left running if that fails.

        Raises:
            AttemptFailed: there is none, with all that could be found out of why.
        """
        completion = await self._complete()
        await self._refuse_for_want_of_a_model(completion)
        generation = self.generation
        finish_reason, usage = await self._server.bill.settle(
            completion,
            self._request,
            prompt_tokens=self._prompt_tokens,
            took_seconds=generation.ended_at - (generation.sent_at or generation.started_at),
            ended_at=generation.ended_at,
            began_at=generation.began_at,
        )
        return GenerationResult(
            completion.text, finish_reason, completion.bill(usage), completion.reasoning
        )

    async def _complete(self) -> Completion:
        server, generation = self._server, self.generation
        try:
            completion = await self._carry_out()
        except AttemptFailed as failure:
            ended = await self._ended(failure.observation)
            if ended is None:
                raise AttemptFailed(await self._examine(failure.observation)) from failure
            completion = ended
        if server.parts_thinking and not generation.stream:
            most = generation.bounds.text
            return await part_unfinished(completion, server.wire, self._genkey, max_bytes=most)
        return completion

    async def _carry_out(self) -> Completion:
        server = self._server
        limits = Limits.of(server.config, server.stall_seconds())
        guard = KoboldGuard(
            server.wire,
            self._genkey,
            counter=server.counter,
            batches=self._batches,
            look_seconds=limits.look_seconds,
            on_abort=server.on_abort,
            reading=self._reading(),
        )
        return await carry_out(self.generation, limits, guard)

    def _reading(self) -> Reading:
        server, prompt_tokens = self._server, self._prompt_tokens
        if prompt_tokens is None:
            prompt_tokens = cautious_tokens(server.dialect.prompt(self._request))
        loads = server.probe.loads_on_request
        return Reading(
            server.probe.speed,
            prompt_tokens,
            unmeasured_seconds=server.config.first_token_timeout_seconds,
            load_seconds=server.config.load_timeout_seconds if loads else 0.0,
        )

    async def _refuse_for_want_of_a_model(self, completion: Completion) -> None:
        may_lack_model = completion.was_empty and completion.finish_reason == LENGTH
        if may_lack_model and not await self._server.probe.has_model():
            raise AttemptFailed.seen(Seen.NO_MODEL)

    # What a failure means.

    async def _ended(self, observation: Observation) -> Completion | None:
        """Return the completion of a stream that was at its end when it broke off; else None."""
        server, generation, request = self._server, self.generation, self._request
        if observation.seen is not Seen.CUT or not generation.stream or self._batches:
            return None
        end = await find_end(
            server.wire,
            self._genkey,
            generation,
            counter=server.counter,
            max_tokens=request.sampling.max_tokens,
            stops=server.dialect.stops(request) or request.sampling.stop,
        )
        return None if end is None else generation.end_as(end.finish_reason, end.usage)

    async def _examine(self, observation: Observation) -> Observation:
        """Find out what else is to be known of a failure, and leave nothing running."""
        server, generation, features = self._server, self.generation, self._server.probe.features
        observation = replace(
            observation,
            passed_on=generation.passed_on,
            reloading=is_away(observation, features),
        )
        if observation.seen in _BROKEN_OFF:
            sent_at = generation.sent_at or generation.started_at
            aftermath = await find_aftermath(server.wire, sent_at=sent_at)
            if await self._ended_for_want_of_a_model(observation, aftermath):
                return replace(observation, seen=Seen.NO_MODEL)
            return replace(observation, aftermath=aftermath, reloading=may_reload(features))
        if observation.seen in _GIVEN_UP and generation.stream:
            await abort_once(server.wire, self._genkey)
            server.on_abort(AbortReason.UNREADABLE, AbortEnd())
        if observation.status in _UNAUTHORISED:
            server.probe.forget()
        if observation.status == BUSY_STATUS:
            await server.admission.refused()
        # A later KoboldCPP says so where an earlier one answers with an empty text.
        if observation.seen is Seen.HALF_ANSWER and not await self._has_model():
            return replace(observation, seen=Seen.NO_MODEL)
        return observation

    async def _ended_for_want_of_a_model(
        self, observation: Observation, aftermath: Aftermath
    ) -> bool:
        """Whether a stream ended before its first piece because there is nothing to make one."""
        return (
            observation.seen is Seen.CUT
            and aftermath is Aftermath.GOES_ON
            and self.generation.progress_at is None
            and not await self._has_model()
        )

    async def _has_model(self) -> bool:
        try:
            return await self._server.probe.has_model()
        except AttemptFailed:
            return True  # The failure itself says more than a server that does not tell.
