"""The client of a KoboldCPP server, which knows its strange habits (`docs/koboldcpp.md`)."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.dialects import wire_dialect
from ai_ticket_daemon.backends.dialects.kobold import PLACEHOLDERS_STAY
from ai_ticket_daemon.backends.generation import GenerationResult
from ai_ticket_daemon.backends.generation_stream import GenerationStream
from ai_ticket_daemon.backends.generation_watch import Limits, carry_out
from ai_ticket_daemon.backends.kobold.abort import AbortEnd, AbortReason, abort_once
from ai_ticket_daemon.backends.kobold.admission import BUSY_STATUS, Admission
from ai_ticket_daemon.backends.kobold.context import ContextGuard
from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.backends.kobold.guard import KoboldGuard
from ai_ticket_daemon.backends.kobold.loading import is_away, may_reload, wake
from ai_ticket_daemon.backends.kobold.perf import find_aftermath
from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
from ai_ticket_daemon.backends.kobold.reading import Reading, cautious_tokens
from ai_ticket_daemon.backends.kobold.stream_end import find_end
from ai_ticket_daemon.backends.kobold.unfinished import part_unfinished
from ai_ticket_daemon.backends.kobold.usage import Bill
from ai_ticket_daemon.backends.observation import Aftermath, AttemptFailed, Observation, Seen
from ai_ticket_daemon.backends.quoting import quotable
from ai_ticket_daemon.backends.tokens import TokenCounter
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.backends.validate import validate
from ai_ticket_daemon.config.backends import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationRequest, ProbeResult
    from ai_ticket_daemon.backends.generation_stream import Completion
    from ai_ticket_daemon.backends.kobold.abort import AbortObserver
    from ai_ticket_daemon.backends.kobold.features import Features
    from ai_ticket_daemon.config.backends import ServerConfig

_BROKEN_OFF = frozenset({Seen.NO_BYTE, Seen.BROKEN, Seen.CUT})
# A stream was given up, and the generation behind it may still run.
_GIVEN_UP = frozenset(
    {Seen.NOT_JSON, Seen.NOT_UTF8, Seen.ENCODED, Seen.WRONG_SHAPE, Seen.TOO_LARGE, Seen.FILTERED}
)


class KoboldClient:
    """Talks to one KoboldCPP; see :class:`BackendClient` for the methods.

    Args:
        config: the server.
        stall_seconds: the ``stall_timeout_seconds`` in force now.
        on_abort: is told of each abort.
    """

    def __init__(
        self, config: ServerConfig, *, stall_seconds: Callable[[], float], on_abort: AbortObserver
    ) -> None:
        self._config = config
        self._on_abort = on_abort
        self._dialect = wire_dialect(config.dialect)
        self._stall_seconds = stall_seconds
        self._generations: set[GenerationStream] = set()
        self._wire = Wire(
            config.url,
            password=config.password,
            connect_timeout_seconds=config.connect_timeout_seconds,
            keep_alive=False,
        )
        self._counter = TokenCounter(self._wire)
        self._admission = Admission(self._wire)
        self._probe = KoboldProbe(self._wire, on_change=self._counter.forget)
        self._context = ContextGuard(
            config, self._dialect, probe=self._probe, counter=self._counter
        )
        self._bill = Bill(
            config, self._dialect, wire=self._wire, counter=self._counter, probe=self._probe
        )

    @property
    def name(self) -> str:
        """The server's name in the conf file."""
        return self._config.name

    @property
    def features(self) -> Features:
        """What the server can do, as it was last seen; nothing before the first probe."""
        return self._probe.features

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """Make one generation and return it; see :meth:`BackendClient.generate`."""
        try:
            knew = self._probe.loads_on_request
            try:
                return await self._generate(request, on_delta)
            except AttemptFailed as failure:
                # It has unloaded its model since it was last looked at: a request may load it.
                unloaded = failure.observation.seen is Seen.NO_MODEL and not knew
                if not unloaded or not self._probe.loads_on_request:
                    raise
                return await self._generate(request, on_delta)
        except AttemptFailed as failure:
            texts = (message.content for message in request.messages)
            observation = quotable(failure.observation, self._config.password, texts)
            raise classify(self.name, observation) from failure

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """Look at the server's health; see :meth:`BackendClient.probe`."""
        try:
            return await self._probe.probe(identify=identify)
        except AttemptFailed as failure:
            observation = quotable(failure.observation, self._config.password)
            raise classify(self.name, observation) from failure

    async def wake(self) -> bool:
        """Have the model loaded; see :meth:`BackendClient.wake`."""
        try:
            return await wake(
                self._wire, self.features, timeout_seconds=self._config.load_timeout_seconds
            )
        except AttemptFailed as failure:
            observation = quotable(failure.observation, self._config.password)
            raise classify(self.name, observation) from failure

    def doubt(self) -> None:
        """Look at what runs there; see :meth:`BackendClient.doubt`."""
        for generation in self._generations:
            generation.doubt()

    async def aclose(self) -> None:
        """Do nothing but what the port asks: no connection is ever idle."""
        await self._wire.aclose()

    async def _generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None
    ) -> GenerationResult:
        size_bytes = validate(request)
        if self._probe.loads_on_request:
            await self._load()
        wants_stream = request.stream
        laid_out = await self._context.lay_out(request, size_bytes)
        request, prompt_tokens = laid_out.request, laid_out.prompt_tokens
        batches = not self._bill.counts
        if batches or (self._parts_thinking and Feature.THINKS in self.features):
            # In a batch only a stream shows that it gets on, and only a closed one frees its slot.
            request = replace(request, stream=True)
        if not batches:  # One that batches is never idle, and still takes more.
            await self._admission.wait()
        # A key of its own for every attempt: the server may remember an abort for a used one.
        genkey = secrets.token_hex(16)
        generation = GenerationStream(
            self._wire,
            self._dialect,
            request,
            json.dumps(
                {
                    **self._dialect.body(request),
                    **PLACEHOLDERS_STAY,
                    "genkey": genkey,
                }
            ).encode(),
            on_delta=on_delta if wants_stream else None,
        )
        limits = Limits.of(self._config, self._stall_seconds())
        guard = KoboldGuard(
            self._wire,
            genkey,
            counter=self._counter,
            batches=batches,
            look_seconds=limits.look_seconds,
            on_abort=self._on_abort,
            reading=self._reading(request, prompt_tokens),
        )
        self._generations.add(generation)
        try:
            completion = await carry_out(generation, limits, guard)
        except AttemptFailed as failure:
            ended = await self._completed(failure.observation, generation, genkey, request)
            if ended is None:
                raise AttemptFailed(
                    await self._examine(failure.observation, generation, genkey)
                ) from failure
            completion = ended
        finally:
            self._generations.discard(generation)
        if self._parts_thinking and not generation.stream:
            max_bytes = generation.bounds.text
            completion = await part_unfinished(completion, self._wire, genkey, max_bytes=max_bytes)
        may_lack_model = completion.was_empty and completion.finish_reason == "length"
        if may_lack_model and not await self._probe.has_model():
            raise AttemptFailed.seen(Seen.NO_MODEL)
        finish_reason, usage = await self._bill.settle(
            completion,
            request,
            prompt_tokens=prompt_tokens,
            took_seconds=generation.ended_at - (generation.sent_at or generation.started_at),
            ended_at=generation.ended_at,
            began_at=generation.began_at,
        )
        return GenerationResult(
            completion.text, finish_reason, completion.bill(usage), completion.reasoning
        )

    async def _load(self) -> None:
        """Have the model loaded, and look at what it is: how to ask it follows from that."""
        try:
            await wake(self._wire, self.features, timeout_seconds=self._config.load_timeout_seconds)
        except AttemptFailed as failure:
            observation = failure.observation
            away = is_away(observation, self.features)
            raise AttemptFailed(replace(observation, reloading=away)) from failure
        await self._probe.probe(identify=True)
        if self._probe.loads_on_request:
            raise AttemptFailed.seen(Seen.NO_MODEL)

    @property
    def _parts_thinking(self) -> bool:
        """Whether the server parts what it answers to a chat."""
        chats = self._config.dialect is Dialect.OPENAI_CHAT
        return chats and Feature.REASONING in self.features

    def _reading(self, request: GenerationRequest, prompt_tokens: int | None) -> Reading:
        if prompt_tokens is None:
            prompt_tokens = cautious_tokens(self._dialect.prompt(request))
        return Reading(
            self._probe.speed,
            prompt_tokens,
            unmeasured_seconds=self._config.first_token_timeout_seconds,
            load_seconds=self._config.load_timeout_seconds if self._probe.loads_on_request else 0.0,
        )

    async def _completed(
        self,
        observation: Observation,
        generation: GenerationStream,
        genkey: str,
        request: GenerationRequest,
    ) -> Completion | None:
        """Return the completion of a stream that was at its end when it broke off; else None."""
        if observation.seen is not Seen.CUT or not generation.stream or not self._bill.counts:
            return None
        end = await find_end(
            self._wire,
            genkey,
            generation,
            counter=self._counter,
            max_tokens=request.sampling.max_tokens,
            stops=self._dialect.stops(request) or request.sampling.stop,
        )
        return None if end is None else generation.end_as(end.finish_reason, end.usage)

    async def _examine(
        self, observation: Observation, generation: GenerationStream, genkey: str
    ) -> Observation:
        """Find out what else is to be known of a failure, and leave nothing running."""
        observation = replace(
            observation,
            passed_on=generation.passed_on,
            reloading=is_away(observation, self.features),
        )
        if observation.seen in _BROKEN_OFF:
            sent_at = generation.sent_at or generation.started_at
            aftermath = await find_aftermath(self._wire, sent_at=sent_at)
            if await self._ended_for_want_of_a_model(observation, aftermath, generation):
                return replace(observation, seen=Seen.NO_MODEL)
            return replace(observation, aftermath=aftermath, reloading=may_reload(self.features))
        if observation.seen in _GIVEN_UP and generation.stream:
            await abort_once(self._wire, genkey)
            self._on_abort(AbortReason.UNREADABLE, AbortEnd())
        if observation.status in (401, 403):
            self._probe.forget()
        if observation.status == BUSY_STATUS:
            await self._admission.refused()
        # A later KoboldCPP says so where an earlier one answers with an empty text.
        if observation.seen is Seen.HALF_ANSWER and not await self._has_model():
            return replace(observation, seen=Seen.NO_MODEL)
        return observation

    async def _ended_for_want_of_a_model(
        self, observation: Observation, aftermath: Aftermath, generation: GenerationStream
    ) -> bool:
        """Whether a stream ended before its first piece because there is nothing to make one."""
        return (
            observation.seen is Seen.CUT
            and aftermath is Aftermath.GOES_ON
            and generation.progress_at is None
            and not await self._has_model()
        )

    async def _has_model(self) -> bool:
        try:
            return await self._probe.has_model()
        except AttemptFailed:
            return True  # The failure itself says more than a server that does not tell.
