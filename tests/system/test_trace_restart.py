"""One trace through a daemon that is killed and one that takes over, as a collector sees it."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from ai_ticket_daemon.testing.otlp import grpc_collector, http_collector
from tests.system.test_process import COMMAND, Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ai_ticket_daemon.testing.otlp import Collector

pytestmark = pytest.mark.system

TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"


@asynccontextmanager
async def life(conf: Path) -> AsyncIterator[Process]:
    """One life of the daemon; killed at the end of the block unless it has ended."""
    environ = {**os.environ, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    async with trio.open_nursery() as nursery:
        opened = await trio.lowlevel.open_process(
            [*COMMAND, "--config", str(conf)], stderr=PIPE, env=environ
        )
        process = Process(opened, conf)
        nursery.start_soon(process.read)
        try:
            await process.logged("started")
            yield process
        finally:
            if opened.returncode is None:
                opened.kill()
            with trio.CancelScope(shield=True):
                await opened.wait()


@pytest.mark.parametrize(
    ("protocol", "open_collector"),
    [("http/protobuf", http_collector), ("grpc", grpc_collector)],
    ids=["http", "grpc"],
)
async def test_a_kill_and_a_restart_leave_the_trace_in_one_piece(
    protocol: str, open_collector: Callable[[], AbstractContextManager[Collector]], tmp_path: Path
) -> None:
    headers = {
        "traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01",
        "prefer": "respond-async",
        "content-type": "application/json",
    }
    with open_collector() as collector:
        async with open_simulated_kobold(KoboldSettings().scaled(0.1)) as simulated:
            conf = conf_for(tmp_path, collector, protocol, simulated.url)
            simulated.faults.stall(after_tokens=1, ignores_abort=False)
            async with (
                life(conf) as first,
                httpx.AsyncClient(base_url=first.url, timeout=60) as client,
            ):
                body = {"content": "hello", "max_tokens": 4}
                answer = await client.post("/event", json=body, headers=headers)
                assert answer.status_code == 202
                event_id = answer.json()["event_id"]
                await simulated.wait_for(lambda s: s.running == 1)
                await trio.to_thread.run_sync(lambda: collector.wait_for("server.handle_event"))
                first.process.send_signal(signal.SIGKILL)
                assert await first.exit_code() == -signal.SIGKILL
            simulated.faults.clear()
            async with (
                life(conf) as second,
                httpx.AsyncClient(base_url=second.url, timeout=60) as client,
            ):
                status = (await client.get(f"/event/{event_id}?wait=20")).json()
                assert status["state"] == "succeeded", status
                ended = await second.logged("event_ended")
                second.process.send_signal(signal.SIGTERM)
                assert await second.exit_code() == 0
    assert ended["trace_id"] == TRACE
    by_id = {span.span_id: span for span in collector.spans}
    assert {span.trace_id for span in by_id.values()} == {TRACE}
    assert {span.parent_id for span in by_id.values()} - set(by_id) == {CLIENT_SPAN}
    (attempt,) = (span for span in by_id.values() if span.name == "kobold.get_completion")
    turn = by_id[attempt.parent_id]
    assert turn.name == "pipeline.handle_event"
    assert turn.attributes["ai_ticket.event_id"] == event_id
    assert turn.attributes["ai_ticket.outcome"] == "succeeded"
    assert by_id[turn.parent_id].name == "server.handle_event"
    instances = {span.resource["service.instance.id"] for span in by_id.values()}
    assert len(instances) == 2  # two processes, one trace


@pytest.mark.parametrize("path", ["/event", "/events"])
@pytest.mark.parametrize("known", [True, False], ids=["traced by the client", "on its own"])
async def test_a_client_that_was_cut_off_leaves_no_hole_in_the_trace(
    known: bool, path: str, tmp_path: Path
) -> None:
    """Its own span dies with the daemon, and earlier attempts hang from it."""
    headers = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"} if known else {}
    item = {"content": "hello", "max_tokens": 4}
    body: Any = item if path == "/event" else [item, item]
    with http_collector() as collector:
        async with open_simulated_kobold(KoboldSettings().scaled(0.1)) as simulated:
            conf = conf_for(tmp_path, collector, "http/protobuf", simulated.url)
            simulated.faults.script("server_error", times=1)
            simulated.faults.stall(after_tokens=1, ignores_abort=False)
            async with (
                life(conf) as first,
                httpx.AsyncClient(base_url=first.url, timeout=60) as client,
            ):

                async def be_cut_off() -> None:
                    with pytest.raises(httpx.TransportError):
                        await client.post(path, json=body, headers=headers, timeout=60)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(be_cut_off)
                    await simulated.wait_for(lambda s: s.running == 1)
                    # The first attempt has failed, and its spans are out.
                    await trio.to_thread.run_sync(
                        lambda: collector.wait_for("pipeline.handle_event")
                    )
                    first.process.send_signal(signal.SIGKILL)
                    await first.exit_code()
            simulated.faults.clear()
            async with life(conf) as second:
                await second.logged("event_ended", count=1 if path == "/event" else 2)
                second.process.send_signal(signal.SIGTERM)
                assert await second.exit_code() == 0
    spans = collector.spans
    ids = [span.span_id for span in spans]
    assert len(set(ids)) == len(ids)
    assert len({span.trace_id for span in spans}) == 1
    (request,) = (span for span in spans if span.name == "server.handle_event")
    assert request.parent_id == (CLIENT_SPAN if known else "")
    assert request.failed
    assert ("ai_ticket.event_id" in request.attributes) == (path == "/event")
    assert {span.parent_id for span in spans} - set(ids) == {request.parent_id}
    assert sum(span.name == "pipeline.handle_event" for span in spans) >= 2


async def test_a_client_that_was_sent_away_has_its_span_once(tmp_path: Path) -> None:
    with http_collector() as collector:
        async with open_simulated_kobold(KoboldSettings().scaled(0.1)) as simulated:
            conf = conf_for(tmp_path, collector, "http/protobuf", simulated.url)
            conf.write_text("pipeline.drain_seconds = 0\n" + conf.read_text())
            simulated.faults.stall(after_tokens=1, ignores_abort=False)
            async with (
                life(conf) as first,
                httpx.AsyncClient(base_url=first.url, timeout=60) as client,
            ):

                async def be_sent_away() -> None:
                    item = {"content": "hello", "max_tokens": 4}
                    answer = await client.post("/event", json=item, timeout=60)
                    assert answer.json()["error"] == "draining"

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(be_sent_away)
                    await simulated.wait_for(lambda s: s.running == 1)
                    first.process.send_signal(signal.SIGTERM)
                    assert await first.exit_code() == 0
            simulated.faults.clear()
            async with life(conf) as second:
                await second.logged("event_ended")
                second.process.send_signal(signal.SIGTERM)
                assert await second.exit_code() == 0
    spans = collector.spans
    assert [span.name for span in spans].count("server.handle_event") == 1
    assert {span.parent_id for span in spans} - {span.span_id for span in spans} == {""}


def conf_for(folder: Path, collector: Collector, protocol: str, url: str) -> Path:
    conf = folder / "ai-ticket.conf"
    conf.write_text(
        f"""
        http.bind = ["127.0.0.1:0"]
        metrics.bind = "127.0.0.1:0"
        store.url = "sqlite:///{folder}/events.db"
        telemetry.otlp_endpoint = "{collector.endpoint}"
        telemetry.otlp_protocol = "{protocol}"
        [[backends.server]]
        name = "primary"
        url = "{url}"
        """
    )
    return conf
