"""The client of an OpenAI-compatible server, such as llama.cpp's.

Such a server tells its usage truly, keeps connections open between requests, and stops generating
when the connection is closed.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from ai_ticket_daemon.backends.dialects import wire_dialect
from ai_ticket_daemon.backends.dialects.kobold import PLACEHOLDERS_STAY
from ai_ticket_daemon.backends.finish import STOP
from ai_ticket_daemon.backends.generation import GenerationResult, ProbeResult
from ai_ticket_daemon.backends.generation_stream import GenerationStream
from ai_ticket_daemon.backends.generation_watch import Limits, carry_out
from ai_ticket_daemon.backends.kobold.admission import BUSY_STATUS, Admission
from ai_ticket_daemon.backends.kobold.model_name import names_no_model
from ai_ticket_daemon.backends.kobold.unfinished import part_unfinished
from ai_ticket_daemon.backends.observation import Aftermath, AttemptFailed, Seen, SlotEnd
from ai_ticket_daemon.backends.server_client import ServerClient
from ai_ticket_daemon.backends.software import Software
from ai_ticket_daemon.backends.text.cleaning import clean_name, whole_number
from ai_ticket_daemon.backends.tokens import estimate_tokens
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.backends.usage import estimate_usage, true_usage
from ai_ticket_daemon.backends.validate import validate
from ai_ticket_daemon.config.backends import BackendKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationRequest
    from ai_ticket_daemon.backends.generation_stream import Completion
    from ai_ticket_daemon.config.backends import ServerConfig

MODELS_PATH = "/v1/models"
_BROKEN_OFF = frozenset({Seen.NO_BYTE, Seen.BROKEN, Seen.CUT})
_LOOK_TIMEOUT_SECONDS = 2.0
_CONTEXT_KEYS = ("n_ctx", "max_model_len", "n_ctx_train")


class SocketGuard:
    """Guards a generation that ends when its connection is closed, and tells nothing of itself."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def look(self, generation: GenerationStream) -> Seen | float:
        """See :class:`Guard`: all there is to be seen is whether the server answers at all."""
        if not generation.in_doubt:
            return math.inf
        generation.in_doubt = False
        progress_at = generation.progress_at
        try:
            await self._wire.call("GET", MODELS_PATH, timeout_seconds=_LOOK_TIMEOUT_SECONDS)
        except AttemptFailed as failure:
            silent = failure.observation.seen in (Seen.NO_REPLY, Seen.CONNECT_TIMEOUT)
            if silent and generation.progress_at == progress_at:
                return Seen.NO_REPLY
        return math.inf

    async def stop(self, generation: GenerationStream, reason: Seen | None) -> SlotEnd:  # noqa: ARG002
        """Leave it to the closing of the connection, which follows."""
        return SlotEnd.FREE if generation.sent_at is None else SlotEnd.UNSEEN


class OpenAIClient(ServerClient):
    """Talks to one OpenAI-compatible server; see :class:`BackendClient` for the methods.

    Args:
        config: the server.
        stall_seconds: the ``stall_timeout_seconds`` in force now.
    """

    def __init__(self, config: ServerConfig, *, stall_seconds: Callable[[], float]) -> None:
        wire = Wire(
            # Such servers are often named with the path that their clients expect.
            config.url.rstrip("/").removesuffix("/v1"),
            password=config.password,
            connect_timeout_seconds=config.connect_timeout_seconds,
            keep_alive=True,
        )
        super().__init__(config, wire)
        self._dialect = wire_dialect(config.dialect)
        self._stall_seconds = stall_seconds
        self._model = config.model
        self._admission: Admission | None = None

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """Make one generation and return it; see :meth:`BackendClient.generate`."""
        validate(request)
        if self._admission is not None:
            await self._admission.wait()
        genkey = secrets.token_hex(16)
        generation = GenerationStream(
            self._wire,
            self._dialect,
            request,
            msgspec.json.encode(self._body(request, genkey)),
            on_delta=on_delta,
        )
        limits = Limits.of(self._config, self._stall_seconds())
        try:
            with self._running(generation):
                completion = await carry_out(generation, limits, SocketGuard(self._wire))
        except AttemptFailed as failure:
            observation = replace(failure.observation, passed_on=generation.passed_on)
            if self._admission is not None and observation.status == BUSY_STATUS:
                await self._admission.refused()
            if observation.seen in _BROKEN_OFF:
                observation = replace(observation, aftermath=await self._find_aftermath())
            raise self._error(observation, request.messages) from failure
        if self._admission is not None and not request.stream:
            most = generation.bounds.text
            completion = await part_unfinished(completion, self._wire, genkey, max_bytes=most)
        return self._result(completion, request)

    async def probe(self, *, identify: bool = False) -> ProbeResult:  # noqa: ARG002
        """Look at the server's health; see :meth:`BackendClient.probe`."""
        try:
            models = await self._wire.call("GET", MODELS_PATH)
            result = read_models(models, self._config.model)
        except AttemptFailed as failure:
            if failure.observation.status in (401, 403):
                return ProbeResult(model=None, credential_accepted=False)
            raise self._error(failure.observation) from failure
        self._model = self._config.model or name_to_send(models)
        if result.software.better_kind is None:
            self._admission = None
        elif self._admission is None:
            self._admission = Admission(self._wire)
        return result

    async def wake(self) -> bool:
        """Return False: this kind of server loads its model by itself."""
        return False

    def _body(self, request: GenerationRequest, genkey: str) -> dict[str, Any]:
        body = self._dialect.body(request)
        if self._admission is not None:
            body |= {**PLACEHOLDERS_STAY, "genkey": genkey}
        if self._model is not None:
            body["model"] = self._model
        return body

    def _result(self, completion: Completion, request: GenerationRequest) -> GenerationResult:
        finish_reason = STOP if completion.stopped else completion.finish_reason
        limit = request.sampling.max_tokens
        # A KoboldCPP may be one that says the same of every completion.
        usage = true_usage(completion, max_tokens=limit, trusted=self._admission is None)
        if usage is None:
            read = estimate_tokens(self._dialect.prompt(request))
            usage = estimate_usage(completion, finish_reason, prompt_tokens=read, max_tokens=limit)
        return GenerationResult(
            completion.text, finish_reason, completion.bill(usage), completion.reasoning
        )

    async def _find_aftermath(self) -> Aftermath:
        try:
            await self._wire.call("GET", MODELS_PATH)
        except AttemptFailed as failure:
            match failure.observation.seen:
                case Seen.NO_REPLY | Seen.CONNECT_TIMEOUT:
                    return Aftermath.SILENT
                case Seen.HOST_EXHAUSTED:
                    raise self._error(failure.observation) from failure
                case Seen.STATUS:
                    return Aftermath.ANSWERS
                case _:
                    return Aftermath.GONE
        return Aftermath.ANSWERS


def read_models(value: dict[str, Any], wanted: str | None) -> ProbeResult:
    """Return what the list of models says: of the wanted model if it is there, else of the first.

    Raises:
        AttemptFailed: it is no such list, or empty.
    """
    models = _models(value)
    model = next((m for m in models if m["id"] == wanted), models[0])
    meta = model.get("meta")
    places = [*([meta] if isinstance(meta, dict) else []), model]
    sizes = (whole_number(place.get(key)) for place in places for key in _CONTEXT_KEYS)
    name = clean_name(model["id"])
    has_model = not names_no_model(name)  # KoboldCPP speaks this API, too.
    return ProbeResult(
        model=name if has_model else None,
        has_model=has_model,
        context_tokens=next((size for size in sizes if size), None),
        software=Software(better_kind=BackendKind.KOBOLDCPP if _is_kobold(model) else None),
    )


def _is_kobold(model: dict[str, Any]) -> bool:
    """Whether a KoboldCPP names this model: closing a connection does not free its slot."""
    return "koboldcpp" in (model.get("owned_by"), model.get("root"), model["id"].partition("/")[0])


def name_to_send(value: dict[str, Any]) -> str | None:
    """Return the name that a request may call the first model by; None if it had to be cleaned."""
    name: str = _models(value)[0]["id"]
    return name if clean_name(name) == name else None


def _models(value: dict[str, Any]) -> list[dict[str, Any]]:
    models = value.get("data")
    if models is None and value.get("object") == "list":
        models = []
    if not isinstance(models, list):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    models = [m for m in models if isinstance(m, dict) and isinstance(m.get("id"), str)]
    if not models:
        raise AttemptFailed.seen(Seen.NO_MODEL)
    return models
