"""The state of one server process, from its start to its death."""

from __future__ import annotations

import math
import random
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from .answers import answers_of
from .dialects import read_job
from .generate import Engine, Plan, plan_answer, tokenize
from .lenient import read_newer_job
from .lock import GenerationLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from .dialects import Dialect, Job
    from .faults import Faults
    from .observe import Observations
    from .settings import KoboldSettings
    from .wire import Connection, Request

__all__ = ["ServerProcess"]

_MARGIN_TOKENS = 16


class ServerProcess:
    """Everything a restart forgets: lock, engine, keys, counters, connections."""

    def __init__(
        self,
        settings: KoboldSettings,
        faults: Faults,
        observations: Observations,
        *,
        unloaded: bool = False,
    ) -> None:
        self.settings = settings
        self.faults = faults
        self.observations = observations
        self.accidents = random.Random(settings.seed)
        self.lock = GenerationLock(settings, self.accidents)
        self.answers = answers_of(newer=settings.newer)
        self.engine = Engine(settings, faults, observations.changed)
        self.batch: set[Engine] = set()
        """Those of the generations that share a batch; nobody can ask for them."""
        self._alone = trio.Lock()
        self._generating: set[trio.CancelScope] = set()
        self.unloaded = unloaded
        self.reload_at = math.inf
        self.reload_with_model = True
        self.away = False
        """Behind a router: the process that generates is being started."""
        self.scope = trio.CancelScope()
        self.connections: set[Connection] = set()
        self.current_genkey = ""
        """The key of the running generation, or of the last one."""
        self.pending_abort_key = ""
        self.token_buffer: list[int] = []
        self.started_at = trio.current_time()
        self.last_request_at = self.started_at
        self._epoch = time.time() - self.started_at

    @property
    def has_model(self) -> bool:
        """Whether a model is loaded."""
        return self.settings.has_model and not self.faults.inactive and not self.unloaded

    @property
    def model(self) -> str:
        """The name shown in answers."""
        if not self.has_model:
            return "inactive"
        return self.faults.model or self.settings.model

    @property
    def context_tokens(self) -> int:
        """The context size of the loaded model."""
        return self.faults.context_tokens or self.settings.context_tokens

    @property
    def protected(self) -> bool:
        """Whether a password is in force."""
        if self.faults.reject_all:
            return True
        return self.settings.password is not None and self.has_model

    def authorized(self, request: Request) -> bool:
        """Whether the request may use protected endpoints."""
        if not self.protected:
            return True
        given = request.headers.get("authorization")
        return not self.faults.reject_all and given == f"Bearer {self.settings.password}"

    def read_job(self, dialect: Dialect, stream_path: bool, body: Any) -> Job:
        """Turn a JSON body into a job, as this version does."""
        if not self.settings.newer:
            return replace(read_job(dialect, stream_path, body), thinks=self.settings.thinking)
        return read_newer_job(
            dialect, stream_path, body, settings=self.settings, context=self.context_tokens
        )

    @asynccontextmanager
    async def engine_for(self, job: Job) -> AsyncIterator[Engine]:
        """Lend the engine that writes a job: one of its own if it shares a batch."""
        if self.settings.parallel == 1:
            yield self.engine
        elif not job.shares_batch:
            async with self._alone:
                yield self.engine
        else:
            engine = Engine(self.settings, self.faults, self.observations.changed)
            self.batch.add(engine)
            try:
                yield engine
            finally:
                self.batch.discard(engine)

    @contextmanager
    def generating(self) -> Iterator[trio.CancelScope]:
        """A block that ends when the process that generates is started anew behind its router."""
        with trio.CancelScope() as scope:
            self._generating.add(scope)
            try:
                yield scope
            finally:
                self._generating.discard(scope)

    async def begin_anew(self, *, model: bool) -> None:
        """Behind a router: end what is generated, be away, come back with fresh counters."""
        self.away = True
        for scope in self._generating:
            scope.cancel()
        await trio.sleep(self.settings.load_seconds)
        self._come_back(unloaded=not model)

    async def load(self) -> None:
        """Behind a router: load the model for a request that names one."""
        self.away = True
        try:
            await trio.sleep(self.settings.load_seconds)
        finally:
            self._come_back(unloaded=False)

    def _come_back(self, *, unloaded: bool) -> None:
        self.engine = Engine(self.settings, self.faults, self.observations.changed)
        self.current_genkey = self.pending_abort_key = ""
        self.started_at = trio.current_time()
        self.away, self.unloaded = False, unloaded
        self.observations.changed()

    @property
    def tokens_written(self) -> int:
        """Tokens of what is written now."""
        return sum(e.produced for e in (self.engine, *self.batch) if e.running)

    def created(self) -> int:
        """The calendar time in whole seconds."""
        return int(self._epoch + trio.current_time())

    def plan(self, job: Job) -> tuple[Plan, int, Sequence[str]]:
        """Decide what to write for a job; return also the size of its prompt, and its tokens.

        It is cut to what there is room for. Where reading takes no time, there are no tokens.
        """
        context = self.context_tokens
        if job.context_tokens is not None:
            context = min(context, job.context_tokens)
        max_tokens = min(job.max_tokens, max(context - _MARGIN_TOKENS, 0))
        prompt, size, tokens = self._fit(job.prompt, context - max(max_tokens, 0))
        subject = prompt if job.subject is None else job.subject
        plan = plan_answer(
            subject,
            settings=self.settings,
            max_tokens=max_tokens,
            seed=job.seed,
            stops=job.stops,
            trim_stop=job.trim_stop,
            ban_end_of_text=job.ban_end_of_text,
            thinks=job.thinks,
            literal=job.literal,
        )
        return plan, size, tokens

    def _fit(self, prompt: str, room_tokens: int) -> tuple[str, int, Sequence[str]]:
        """Cut the beginning of a prompt that is too long, without a word to anyone."""
        untimed = self.settings.prompt_seconds is not None or (
            self.settings.prompt_tokens_per_second == float("inf")
        )
        if untimed and len(prompt) < room_tokens:
            return prompt, len(prompt) // 4 + 1, ()
        tokens = tokenize(prompt)
        if len(tokens) + 1 > room_tokens:
            tokens = tokens[len(tokens) + 1 - max(room_tokens, 1) :]
            prompt = "".join(tokens)
        return prompt, len(tokens) + 1, ["", *tokens]

    def seed_of(self, job: Job) -> int:
        """The seed reported for a job; taken from the clock if none was given."""
        return job.seed if job.seed > 0 else self.created() % 1_000_000

    def finish_reason(self, engine: Engine) -> str:
        """How the last generation of an engine ended, in the words of its answer."""
        if not self.has_model:
            return self.empty_reason
        return "stop" if engine.stop_reason == 1 else "length"

    @property
    def empty_reason(self) -> str:
        """The reason of an answer that nothing was generated for."""
        return "error" if self.settings.newer and not self.has_model else "length"
