"""Probing KoboldCPP: its load every time, its model when that may have changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.kobold.features import OLDEST, Feature, Features, Told, features_of
from ai_ticket_daemon.backends.kobold.model_name import is_masked, names_no_model
from ai_ticket_daemon.backends.kobold.perf import Perf, read_perf
from ai_ticket_daemon.backends.kobold.reading import PromptSpeed
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.text.cleaning import clean_name, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.transport.wire import Wire

MODEL_PATH = "/api/v1/model"
CONTEXT_PATH = "/api/extra/true_max_context_length"
MODELS_PATH = "/v1/models"
VERSION_PATH = "/api/extra/version"
PROPS_PATH = "/props"
IDENTIFY_EVERY = 15
"""After so many probes the model is read again: some tools swap it without a restart."""
_MAY_BE_MISSING_SECONDS = 1.0
"""How long an answer is waited for that some servers do not give."""

_NOT_THERE = frozenset(
    {
        Seen.STATUS,
        Seen.NOT_JSON,
        Seen.NOT_UTF8,
        Seen.ENCODED,
        Seen.WRONG_SHAPE,
        Seen.TOO_LARGE,
    }
)
_UNANSWERED = frozenset({Seen.NO_REPLY, Seen.NO_BYTE, Seen.NOT_HTTP, Seen.BROKEN, Seen.CUT})


class KoboldProbe:
    """Looks at one server and remembers what it is.

    Args:
        wire: leads to the server.
        on_change: called when the server may have become another one.
    """

    def __init__(self, wire: Wire, on_change: Callable[[], None]) -> None:
        self._wire = wire
        self._on_change = on_change
        self._perf: Perf | None = None
        self._probes_to_identify = 0
        self._model: str | None = None
        self._has_model = True
        self._credential_accepted = True
        self._context_tokens: int | None = None
        self._features_due = True
        self._told: dict[str, dict[str, Any]] = {}
        self._unanswered: set[str] = set()
        self.features: Features = OLDEST
        self.speed = PromptSpeed()

    async def probe(self, *, identify: bool) -> ProbeResult:
        """Look at the server, and read its model if it may have changed or ``identify`` says so.

        Raises:
            AttemptFailed: it did not answer sensibly.
        """
        perf = await read_perf(self._wire)
        if self._perf is None or perf.restarted_since(self._perf):
            self.forget()
        self._perf = perf
        self.speed.note(perf)
        if identify or self._probes_to_identify == 0:
            unanswered, had_model = frozenset(self._unanswered), self._has_model
            await self._identify()
            # What it does not answer now it may the next time; if not, it is asked as rarely.
            again_soon = not self._unanswered <= unanswered
            self._probes_to_identify = 1 if again_soon else IDENTIFY_EVERY
            if self._has_model is not had_model:
                # Between the two questions another process has begun to answer.
                self._perf = perf = await read_perf(self._wire)
        self._probes_to_identify -= 1
        return ProbeResult(
            model=self._model,
            has_model=self._has_model,
            context_tokens=self._context_tokens,
            busy=not perf.idle,
            waiting=perf.queue,
            uptime_seconds=perf.uptime_seconds,
            generations=perf.total_gens,
            prompt_tokens_per_second=perf.prompt_tokens_per_second,
            written_tokens_per_second=perf.written_tokens_per_second,
            last_prompt_tokens=perf.last_input_count,
            credential_accepted=self._credential_accepted,
            loads_on_request=self.loads_on_request,
            software=replace(self.features.software, unanswered=tuple(sorted(self._unanswered))),
        )

    @property
    def loads_on_request(self) -> bool:
        """Whether the server has no model loaded, and loads one for the next request."""
        return not self._has_model and Feature.ROUTER in self.features

    async def context_tokens(self) -> int | None:
        """Return the size of the server's context; None if it has none, having no model.

        Raises:
            AttemptFailed: it is not known yet, and the server did not answer sensibly.
        """
        if self._context_tokens is None:
            self._context_tokens = await self._read_context()
        return self._context_tokens

    async def has_model(self) -> bool:
        """Whether the server has a model loaded, asked anew.

        Raises:
            AttemptFailed: it did not answer sensibly.
        """
        name = await self._read_model()
        self._has_model = not names_no_model(name)
        if not self._has_model:
            self.forget()
        return self._has_model

    def forget(self) -> None:
        """Let the next probe find out anew what the server is."""
        self._probes_to_identify = 0
        self._context_tokens = None
        self._features_due = True
        self._told.clear()
        self.speed.forget()
        self._on_change()

    async def _identify(self) -> None:
        name = await self._read_model()
        context_tokens = await self._read_context()
        masked = is_masked(name)
        # A masked name may stand for no model at all: then nothing is wrong with the password.
        self._has_model = not names_no_model(await self._read_open_name() if masked else name)
        self._credential_accepted = not (masked and self._has_model)
        model = name if self._has_model and self._credential_accepted else None
        if (model, context_tokens) != (self._model, self._context_tokens):
            self._features_due = True
            self._told.clear()
            self._on_change()
        if self._features_due:
            self.features = await self._read_features()
            self._features_due = bool(self._unanswered & {VERSION_PATH, PROPS_PATH})
        self._model, self._context_tokens = model, context_tokens

    async def _read_features(self) -> Features:
        about = await self._read_if_there(VERSION_PATH)
        return features_of(Told(about, await self._read_if_there(PROPS_PATH)))

    async def _read_if_there(self, path: str) -> dict[str, Any]:
        """Return what a path tells; nothing if this version of the server does not know it.

        If it does not answer there, what it told before counts: its other answers show that it is
        well. Each takes a part of the time that is left to the probe, so that it gets done.
        """
        left = trio.current_effective_deadline() - trio.current_time()
        timeout_seconds = min(_MAY_BE_MISSING_SECONDS, left / 4)
        self._unanswered.discard(path)
        try:
            self._told[path] = await self._wire.call("GET", path, timeout_seconds=timeout_seconds)
        except AttemptFailed as failure:
            if failure.observation.seen in _UNANSWERED:
                self._unanswered.add(path)
                return self._told.get(path, {})
            if failure.observation.seen not in _NOT_THERE:
                raise
            return {}
        return self._told[path]

    async def _read_model(self) -> str:
        name = (await self._wire.call("GET", MODEL_PATH)).get("result")
        if not isinstance(name, str):
            raise AttemptFailed.seen(Seen.WRONG_SHAPE)
        return clean_name(name)

    async def _read_open_name(self) -> str:
        """Return the name that is told without a password, too; empty if it is not told."""
        match await self._read_if_there(MODELS_PATH):
            case {"data": [{"id": str(name)}, *_]}:
                return clean_name(name)
        return ""

    async def _read_context(self) -> int | None:
        value = whole_number((await self._wire.call("GET", CONTEXT_PATH)).get("value"))
        if value is None:
            raise AttemptFailed.seen(Seen.WRONG_SHAPE)
        return value or None
