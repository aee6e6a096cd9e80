"""Spans as a collector sees them: over HTTP and gRPC, in one tree, and a collector that is away."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import trio
import trustme
from prometheus_client import CollectorRegistry

from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.backends.failure import BackendError
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.config.backend_server import BackendKind
from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.telemetry import OtlpProtocol, TelemetryConfig, TracesExporter
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.telemetry.client import InstrumentedClient
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.telemetry.metrics import Metrics
from ai_ticket_daemon.telemetry.traces.tracing import open_tracing
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from ai_ticket_daemon.testing.otlp import Collector, ReceivedSpan, grpc_collector, http_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ai_ticket_daemon.testing.kobold import SimulatedKobold

INSTANT = KoboldSettings().instant()
QUICK = KoboldSettings().scaled(0.1)
TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"
TREE = ("server.handle_event", "pipeline.handle_event", "kobold.get_completion")


def server(simulated: SimulatedKobold, **changes: Any) -> ServerConfig:
    config = ServerConfig(name="primary", url=simulated.url, role=BackendRole.PRIMARY)
    return replace(config, **changes)


@asynccontextmanager
async def traced(
    telemetry: TelemetryConfig, *servers: ServerConfig
) -> AsyncIterator[tuple[RunningDaemon, httpx.AsyncClient]]:
    config = config_for(*servers)
    config = replace(
        config, telemetry=telemetry, pipeline=PipelineConfig(backoff_seconds=0.01, drain_seconds=1)
    )
    async with (
        open_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
    ):
        yield daemon, client


async def wait_for(collector: Collector, *names: str) -> dict[str, ReceivedSpan]:
    spans = await trio.to_thread.run_sync(lambda: collector.wait_for(*names))
    return {span.name: span for span in spans}


@pytest.fixture(autouse=True)
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@pytest.mark.parametrize(
    ("protocol", "open_collector"),
    [(OtlpProtocol.HTTP_PROTOBUF, http_collector), (OtlpProtocol.GRPC, grpc_collector)],
    ids=["http", "grpc"],
)
async def test_one_trace_leads_from_the_client_to_the_backend(
    protocol: OtlpProtocol, open_collector: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with open_collector() as collector:
        telemetry = TelemetryConfig(
            otlp_endpoint=collector.endpoint, otlp_protocol=protocol, service_name="tickets"
        )
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated, model=INSTANT.model)) as (_, client),
        ):
            answer = await client.post(
                "/event",
                json={"content": "hello", "max_tokens": 3, "seed": 7},
                headers={"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01", "tracestate": "a=b"},
            )
            assert answer.status_code == 200
            spans = await wait_for(collector, *TREE)
    top, middle, bottom = (spans[name] for name in TREE)
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert (top.parent_id, middle.parent_id, bottom.parent_id) == (
        CLIENT_SPAN,
        top.span_id,
        middle.span_id,
    )
    assert (top.kind, middle.kind, bottom.kind) == (2, 5, 3)  # SERVER, CONSUMER, CLIENT
    assert top.resource["service.name"] == "tickets"
    assert top.attributes["http.route"] == "/event"
    assert top.attributes["http.response.status_code"] == 200
    event_id = answer.json()["event_id"]
    assert (
        top.attributes["ai_ticket.event_id"] == middle.attributes["ai_ticket.event_id"] == event_id
    )
    assert middle.attributes["ai_ticket.outcome"] == "succeeded"
    usage = answer.json()["usage"]
    assert bottom.attributes == {
        "ai_ticket.backend": "primary",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "koboldcpp",
        "gen_ai.request.model": INSTANT.model,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "server.address": "127.0.0.1",
        "server.port": int(simulated.url.rpartition(":")[2]),
    }


async def test_the_trace_goes_on_to_the_backend() -> None:
    """A server that understands ``traceparent`` can hang its spans below ours."""
    with http_collector() as collector:
        heads: list[bytes] = []

        async def answer(stream: trio.SocketStream) -> None:
            async with stream:
                heads.append(await stream.receive_some(65536))

        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            config = ServerConfig(name="primary", url=url, kind=BackendKind.OPENAI)
            telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint)
            tracing = open_tracing(telemetry, log=Logs().logger(), dropped=lambda *_: None)
            client = InstrumentedClient(
                open_client(config, stall_seconds=lambda: 1.0, on_abort=lambda *_: None),
                config,
                Metrics(CollectorRegistry()),
                tracing.tracer,
            )
            with pytest.raises(BackendError):
                await client.generate(GenerationRequest((Message(Role.USER, "x"),), Sampling()))
            await trio.to_thread.run_sync(tracing.close)
            nursery.cancel_scope.cancel()
    (span,) = collector.spans
    assert span.failed
    (sent,) = [head for head in heads if head.startswith(b"POST /v1/chat")]
    assert f"traceparent: 00-{span.trace_id}-{span.span_id}-0".encode() in sent.lower()


async def test_what_was_decided_on_the_way_stands_on_the_span() -> None:
    with http_collector() as collector:
        telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint)
        async with (
            open_simulated_kobold(QUICK) as simulated,
            traced(telemetry, server(simulated)) as (_, client),
        ):
            simulated.faults.stall(after_tokens=1)
            async with trio.open_nursery() as nursery:

                async def post(text: str) -> None:
                    body = {"content": text, "max_tokens": 10, "stream": text == "third"}
                    answer = await client.post("/event", json=body)
                    assert answer.status_code == 200

                nursery.start_soon(post, "first")
                await simulated.wait_for(lambda s: s.running == 1)
                nursery.start_soon(post, "second")
                await wait_for_queued(client, 1)
                nursery.start_soon(post, "third")
                await wait_for_queued(client, 2)
                simulated.faults.clear()
                simulated.faults.script("server_error", times=1)
            spans = await trio.to_thread.run_sync(
                lambda: collector.wait_for(*["pipeline.handle_event"] * 4)
            )
    turns = [span for span in spans if span.name == "pipeline.handle_event"]
    waits = [
        int(str(event.attributes["ai_ticket.behind"]))
        for span in turns
        for event in span.events
        if event.name == "waited"
    ]
    # The second waited for the first only, the third for both; an event that is alone waits, too,
    # where the host is slow.
    assert 1 in waits
    assert 2 <= max(waits) <= 3
    (failed,) = [s for s in turns if any(e.name == "attempt_failed" for e in s.events)]
    assert failed.event("attempt_failed").attributes["error.type"] == "api_server_error"
    assert failed.event("retry_scheduled").attributes["error.type"] == "api_server_error"
    attempts = [span for span in spans if span.name == "kobold.get_completion"]
    assert sum(any(e.name == "first_text" for e in span.events) for span in attempts) == 1


async def wait_for_queued(client: httpx.AsyncClient, number: int) -> None:
    with trio.fail_after(60):
        while (await client.get("/health")).json()["queue"].get("queued") != number:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def test_an_aborted_generation_says_so() -> None:
    with http_collector() as collector:
        telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint)
        async with (
            open_simulated_kobold(replace(QUICK, tokens_per_second=5)) as simulated,
            traced(telemetry, server(simulated)) as (_, client),
        ):
            body = {"content": "long", "max_tokens": 100, "timeout_seconds": 0.5}
            answer = await client.post("/event", json=body)
            assert answer.status_code == 504
            spans = await wait_for(collector, *TREE)
    assert [event.name for event in spans["kobold.get_completion"].events] == ["aborted"]
    for name in TREE[:2]:
        assert spans[name].failed
        assert spans[name].attributes["error.type"] == "deadline_exceeded"


async def test_a_trace_that_the_client_does_not_record_is_not_recorded() -> None:
    with http_collector() as collector:
        telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint)
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated)) as (_, client),
        ):
            for flags in ("00", "01"):
                headers = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-{flags}"}
                await client.post(
                    "/event", json={"content": flags, "max_tokens": 1}, headers=headers
                )
            await wait_for(collector, *TREE)
    assert [span.name for span in collector.spans].count("server.handle_event") == 1


async def test_a_share_of_the_traces_is_recorded_whole_or_not_at_all() -> None:
    with http_collector() as collector:
        telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint, sample_ratio=0.5)
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated)) as (_, client),
        ):
            for number in range(60):
                await client.post("/event", json={"content": str(number), "max_tokens": 1})
    by_trace: dict[str, set[str]] = {}
    for span in collector.spans:
        by_trace.setdefault(span.trace_id, set()).add(span.name)
    assert 10 < len(by_trace) < 50
    assert all(names == set(TREE) for names in by_trace.values())


async def test_the_standard_variables_are_honoured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # these would go over the standard one
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=topsecret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,host.name=h1",
    }.items():
        monkeypatch.setenv(name, value)
    with http_collector(context) as collector:
        assert collector.endpoint.startswith("https://")
        telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint + "/base/")
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated)) as (_, client),
        ):
            await client.post("/event", json={"content": "hello", "max_tokens": 1})
            spans = await wait_for(collector, *TREE)
    assert set(collector.paths) == {"/base/v1/traces"}
    assert collector.headers[0]["x-api-key"] == "topsecret"
    assert collector.headers[0]["content-encoding"] == "gzip"
    resource = spans[TREE[0]].resource
    assert (resource["deployment.environment"], resource["host.name"]) == ("test", "h1")
    assert resource["service.name"] == "ai-ticket"


async def test_grpc_honours_tls_and_headers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=topsecret")
    with grpc_collector(credentials) as collector:
        telemetry = TelemetryConfig(
            otlp_endpoint=collector.endpoint, otlp_protocol=OtlpProtocol.GRPC
        )
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated)) as (_, client),
        ):
            await client.post("/event", json={"content": "hello", "max_tokens": 1})
            await wait_for(collector, *TREE)
    assert collector.headers[0]["x-api-key"] == "topsecret"


@pytest.mark.parametrize("protocol", list(OtlpProtocol))
@pytest.mark.parametrize("away", ["refused", "silent"])
async def test_a_dead_collector_costs_one_warning_and_a_counter(
    protocol: OtlpProtocol, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "30")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    with trio.socket.socket() as socket:
        await socket.bind(("127.0.0.1", 0))
        if away == "silent":
            socket.listen()
        endpoint = f"http://127.0.0.1:{socket.getsockname()[1]}"
        telemetry = TelemetryConfig(otlp_endpoint=endpoint, otlp_protocol=protocol)
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated)) as (daemon, client),
        ):
            slowest = 0.0
            for number in range(100):
                began = time.perf_counter()
                answer = await client.post("/event", json={"content": str(number), "max_tokens": 1})
                slowest = max(slowest, time.perf_counter() - began)
                assert answer.status_code == 200
            with trio.fail_after(60):
                while not daemon.log("collector_unreachable"):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            daemon.stop()
            with trio.fail_after(60):
                await daemon.stopped.wait()
    assert slowest < 5, "nobody waits for the collector, which has ten seconds"
    (warning,) = daemon.log("collector_unreachable")
    assert warning["reason"]
    registry = daemon.daemon._look.metrics.registry
    dropped = {
        reason: registry.get_sample_value(
            "ai_ticket_telemetry_spans_dropped_total", {"reason": reason}
        )
        or 0
        for reason in ("queue_full", "export_failed", "stopped")
    }
    assert sum(dropped.values()) == 300
    assert dropped["queue_full"] > 0


async def test_a_collector_that_comes_back_is_said_and_gets_what_comes_after() -> None:
    with http_collector() as collector:
        collector.status = 400  # not worth a retry
        telemetry = TelemetryConfig(otlp_endpoint=collector.endpoint)
        async with (
            open_simulated_kobold(INSTANT) as simulated,
            traced(telemetry, server(simulated)) as (daemon, client),
        ):
            await client.post("/event", json={"content": "lost", "max_tokens": 1})
            with trio.fail_after(60):
                while not daemon.log("collector_unreachable"):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            collector.status = 200
            await client.post("/event", json={"content": "kept", "max_tokens": 1})
            await wait_for(collector, *TREE)
            with trio.fail_after(60):
                while not daemon.log("collector_reachable"):  # noqa: ASYNC110
                    await trio.sleep(0.02)
    assert daemon.log("collector_reachable")[0]["dropped"] >= 1
    assert len(daemon.log("collector_unreachable")) == 1


async def test_the_console_gets_one_json_line_per_span(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = TelemetryConfig(traces=TracesExporter.CONSOLE)
    async with (
        open_simulated_kobold(INSTANT) as simulated,
        traced(telemetry, server(simulated)) as (_, client),
    ):
        await client.post("/event", json={"content": "hello", "max_tokens": 1})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["name"] for line in lines} == set(TREE)


@pytest.mark.parametrize("off", ["none", "disabled"])
async def test_traces_can_be_switched_off(
    off: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = TracesExporter.NONE
    if off == "disabled":
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        traces = TracesExporter.CONSOLE
    async with (
        open_simulated_kobold(INSTANT) as simulated,
        traced(TelemetryConfig(traces=traces), server(simulated)) as (_, client),
    ):
        answer = await client.post("/event", json={"content": "hello", "max_tokens": 1})
        assert answer.status_code == 200
    assert capsys.readouterr().out == ""
