"""Counts, times and traces what goes to one backend: span ``kobold.get_completion``.

Attributes follow OpenTelemetry's conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/). Prompts and completions are never among them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio
from opentelemetry.trace import SpanKind

from ai_ticket_daemon.backends.failure import BackendError, RetryRule
from ai_ticket_daemon.backends.wrappers.wrapper import ClientWrapper
from ai_ticket_daemon.config.backend_server import Dialect
from ai_ticket_daemon.telemetry import exemplars
from ai_ticket_daemon.telemetry.traces.spans import current_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.util.types import AttributeValue

    from ai_ticket_daemon.backends.generation import (
        BackendClient,
        GenerationRequest,
        GenerationResult,
        ProbeResult,
    )
    from ai_ticket_daemon.config.backends import ServerConfig
    from ai_ticket_daemon.telemetry.metrics import Metrics
    from ai_ticket_daemon.telemetry.traces.spans import Span, Tracer


class InstrumentedClient(ClientWrapper):
    """A client whose attempts are counted, timed and traced."""

    def __init__(
        self, client: BackendClient, config: ServerConfig, metrics: Metrics, tracer: Tracer | None
    ) -> None:
        super().__init__(client)
        self._config = config
        self._metrics = metrics
        self._tracer = tracer
        self._attributes = _attributes_of(config)
        # Bound here, once: each look-up costs as much as counting.
        tokens = metrics.kobold_tokens
        self._prompt_tokens = tokens.labels(config.name, "prompt")
        self._completion_tokens = tokens.labels(config.name, "completion")
        self._in_flight = metrics.kobold_backend_in_flight.labels(config.name)
        self._duration = metrics.kobold_request_duration.labels(config.name)

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """See :meth:`BackendClient.generate`."""
        if self._tracer is None:
            return await self._counted(request, on_delta, None)
        span = self._tracer.start(
            "kobold.get_completion",
            SpanKind.CLIENT,
            current_context(),
            self._attributes | _attributes_of_request(request),
        )
        try:
            return await self._traced(span, replace(request, headers=span.headers()), on_delta)
        finally:
            span.end()

    async def _traced(
        self, span: Span, request: GenerationRequest, on_delta: Callable[[str], None] | None
    ) -> GenerationResult:
        ended = False
        try:
            result = await self._counted(request, _noting_first(span, on_delta), span)
            ended = True
        except BackendError as error:
            ended = True
            span.set({"error.type": error.code.value})
            span.fail(error.message)
            raise
        finally:
            if not ended:  # cancelled, perhaps in a group
                span.add_event("aborted")
        span.set(
            {
                "gen_ai.response.finish_reasons": (result.finish_reason,),
                "gen_ai.usage.input_tokens": result.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": result.usage.completion_tokens,
            }
        )
        return result

    async def _counted(
        self,
        request: GenerationRequest,
        on_delta: Callable[[str], None] | None,
        span: Span | None,
    ) -> GenerationResult:
        metrics, dialect = self._metrics, self._config.dialect.value
        outcome, started_at = "cancelled", trio.current_time()
        self._in_flight.inc()
        try:
            result = await self._client.generate(request, on_delta)
        except BackendError as error:
            if error.failure.retry is RetryRule.HOST:
                raise  # The backend was not even asked.
            outcome = "failed"
            metrics.kobold_request_failures.labels(self.name, error.code.value).inc()
            raise
        else:
            outcome = "succeeded"
            self._prompt_tokens.inc(result.usage.prompt_tokens)
            self._completion_tokens.inc(result.usage.completion_tokens)
            return result
        finally:
            self._in_flight.dec()
            self._duration.observe(trio.current_time() - started_at, exemplars.of_span(span))
            metrics.kobold_requests.labels(self.name, dialect, outcome).inc()

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """See :meth:`BackendClient.probe`."""
        started_at = trio.current_time()
        result: str | None = "timeout"
        try:
            found = await self._client.probe(identify=identify)
        except BackendError as error:
            # One that this host could not make says nothing of the server.
            result = None if error.failure.retry is RetryRule.HOST else "failed"
            raise
        else:
            result = "answered"
            return found
        finally:
            if result is not None:
                self._metrics.kobold_probe_duration.labels(self.name, result).observe(
                    trio.current_time() - started_at
                )


def _attributes_of(config: ServerConfig) -> dict[str, AttributeValue]:
    chat = config.dialect is Dialect.OPENAI_CHAT
    url = urlsplit(config.url)
    attributes: dict[str, AttributeValue] = {
        "ai_ticket.backend": config.name,
        "gen_ai.operation.name": "chat" if chat else "text_completion",
        "gen_ai.provider.name": config.kind.value,
        "server.address": url.hostname or "",
    }
    if url.port is not None:
        attributes["server.port"] = url.port
    if config.model is not None:
        attributes["gen_ai.request.model"] = config.model
    return attributes


def _attributes_of_request(request: GenerationRequest) -> dict[str, AttributeValue]:
    sampling = request.sampling
    attributes: dict[str, AttributeValue] = {
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
    }
    if sampling.seed is not None:
        attributes["gen_ai.request.seed"] = sampling.seed
    return attributes


def _noting_first(
    span: Span, on_delta: Callable[[str], None] | None
) -> Callable[[str], None] | None:
    """Return ``on_delta`` that notes on the span when the first text came."""
    if on_delta is None:
        return None
    noted = False

    def pass_on(text: str) -> None:
        nonlocal noted
        if not noted:
            noted = True
            span.add_event("first_text")
        on_delta(text)

    return pass_on
