"""The metrics page of a whole daemon: when it answers, what it shows, how large it may grow."""

from __future__ import annotations

import json
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import httpx
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.telemetry import TelemetryConfig, TracesExporter
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from ai_ticket_daemon.testing.kobold.faults import ScriptedAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from prometheus_client.samples import Sample

    from ai_ticket_daemon.testing.kobold import SimulatedKobold

QUICK = KoboldSettings().instant()
NOBODY = ServerConfig(name="primary", url="http://127.0.0.1:1", role=BackendRole.PRIMARY)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def page(daemon: RunningDaemon) -> str:
    """Read the page as Prometheus does, from a thread that knows nothing of the event loop."""
    url = f"http://127.0.0.1:{daemon.daemon.metrics_port}/metrics"
    with urlopen(Request(url, headers={"Accept": OPENMETRICS}), timeout=60) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        return str(answer.read().decode())


def samples(text: str) -> list[Sample]:
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return [s for family in families for s in family.samples]


def value(text: str, name: str, **labels: str) -> float:
    (found,) = (s.value for s in samples(text) if s.name == name and s.labels == labels)
    return found


@asynccontextmanager
async def one_backend(
    telemetry: TelemetryConfig,
) -> AsyncIterator[tuple[RunningDaemon, SimulatedKobold, httpx.AsyncClient]]:
    async with open_simulated_kobold(QUICK) as simulated:
        config = config_for(replace(NOBODY, url=simulated.url))
        async with (
            open_daemon(
                replace(config, telemetry=telemetry, pipeline=PipelineConfig(max_attempts=1))
            ) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            yield daemon, simulated, client


async def test_the_page_answers_while_the_event_loop_is_blocked_for_five_seconds() -> None:
    async with open_daemon(config_for(NOBODY)) as daemon:
        before = value(
            await trio.to_thread.run_sync(page, daemon), "ai_ticket_event_loop_lag_seconds"
        )
        read: list[str] = []

        def look() -> None:
            time.sleep(2)
            read.append(page(daemon))

        looker = threading.Thread(target=look)
        looker.start()
        began = time.monotonic()
        while not read or time.monotonic() < began + 5:
            # The harshest way to block: Python code that never waits.
            assert time.monotonic() < began + 60
        blocked_seconds = time.monotonic() - began
        looker.join()
        [during] = read
        assert before < 1
        assert value(during, "ai_ticket_event_loop_lag_seconds") > 1.5
        await trio.sleep(0.5)  # two wake-ups of the lag's actor
        after = await trio.to_thread.run_sync(page, daemon)
        lag = value(after, "ai_ticket_event_loop_lag_seconds")
        assert blocked_seconds - 1 < lag < blocked_seconds + 1


async def test_durations_carry_the_trace_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with one_backend(TelemetryConfig(traces=TracesExporter.CONSOLE)) as (daemon, _, client):
        answer = await client.post(
            "/event",
            json={"content": "hello", "max_tokens": 2},
            headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
        )
        assert answer.status_code == 200
        expected = {
            "ai_ticket_server_request_duration_seconds",
            "ai_ticket_pipeline_handler_duration_seconds",
            "ai_ticket_pipeline_queue_wait_seconds",
            "ai_ticket_kobold_request_duration_seconds",
        }
        carrying: set[str] = set()
        # A request is counted once it has ended, which is after its client has the answer.
        with trio.fail_after(60):
            while not carrying >= expected:
                carrying = {
                    s.name.removesuffix("_bucket")
                    for s in samples(await trio.to_thread.run_sync(page, daemon))
                    if s.exemplar is not None and s.exemplar.labels == {"trace_id": trace_id}
                }


async def test_what_clients_and_servers_make_up_never_adds_a_series() -> None:
    """10,000 requests, no two alike: paths, ids, tokens, methods, traces, bodies, answers."""
    async with one_backend(TelemetryConfig(traces=TracesExporter.NONE)) as (daemon, simulated, _):
        sent = await send_distinct(daemon.url, simulated, range(500))
        before = ""
        with trio.fail_after(60):
            while 'version="1.76"' not in before:
                await trio.sleep(0.1)
                before = await trio.to_thread.run_sync(page, daemon)
        sent += await send_distinct(daemon.url, simulated, range(500, 10_000))
        after = await trio.to_thread.run_sync(page, daemon)
    assert sent == 10_000
    assert total(after, "ai_ticket_server_requests_total") == 10_000
    assert names(after) == names(before)
    assert len(samples(after)) < 1000


def names(text: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {(s.name, frozenset(s.labels.items())) for s in samples(text)}


def total(text: str, name: str) -> float:
    return sum(s.value for s in samples(text) if s.name == name)


async def send_distinct(url: str, simulated: SimulatedKobold, numbers: range) -> int:
    """Send one request for each number, a few at a time; return how many were answered."""
    answered = 0
    host, _, port = url.removeprefix("http://").partition(":")
    rest = iter(numbers)

    async def client() -> None:
        nonlocal answered
        while share := list(islice(rest, 500)):
            stream = await trio.open_tcp_stream(host, int(port))
            async with stream:
                for number in share:
                    if number % 10 == 9:  # the server makes something up, too
                        words = {"detail": {"msg": f"odd {number}", "type": f"t{number}"}}
                        status = 430 + number // 10 % 60
                        answer = ScriptedAnswer.of(status, json.dumps(words))
                        simulated.faults.script(answer, times=1)
                    await stream.send_all(request(number))
                    await read_answer(stream)
                    answered += 1

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client)
    return answered


def request(number: int) -> bytes:
    match number % 10:
        case 0:
            line, body = f"GET /no/such/path/{number}?q={number}", b""
        case 1:
            line, body = f"GET /event/{number:08x}-0000-7000-8000-000000000000", b""
        case 2:
            line, body = f"DELETE /event/{number}", b""
        case 3:
            line, body = f"MADEUP{number} /event", b""
        case 4:
            line, body = "POST /event", b'{"broken %d' % number
        case 5:
            line, body = "POST /event", json.dumps({f"field{number}": "x"}).encode()
        case 6:
            line = "POST /event"
            body = json.dumps({"content": "x", "temperature": f"hot{number}"}).encode()
        case 7:
            line, body = f"POST /event/{number}/../{number}", b"{}"
        case _:
            line = "POST /event"
            body = json.dumps({"content": f"ticket {number}", "max_tokens": 1}).encode()
    headers = (
        f"host: host{number}.example\r\nauthorization: Bearer token-{number}\r\n"
        f"user-agent: agent/{number}\r\nidempotency-key: key-{number}\r\n"
        f"traceparent: 00-{number + 1:032x}-{number + 1:016x}-01\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    return f"{line} HTTP/1.1\r\n{headers}\r\n".encode() + body


async def read_answer(stream: trio.SocketStream) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some()
        assert chunk, data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(body) < length:
        chunk = await stream.receive_some()
        assert chunk, data
        body += chunk
