"""Chapters on the daemon itself: killed, misconfigured, crashing, cut off from its collector."""

from __future__ import annotations

import re
import signal
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from ai_ticket_daemon.testing.kobold import KoboldSettings
from ai_ticket_daemon.testing.otlp import http_collector

if TYPE_CHECKING:
    from tests.support.drills.stage import Rehearse, Stage

pytestmark = pytest.mark.system

CRASHES_UPON_USR1 = """\
import sys
from ai_ticket_daemon import __main__, app
app.Daemon._show_tasks = lambda self: 1 / 0
sys.exit(__main__.main(sys.argv[1:]))
"""
RESTARTS = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_actor_restarts_total"
RELOADED = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_config_last_reload_successful"
EXPIRY = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_tls_certificate_expiry"
SPANS = "curl -s http://localhost:9464/metrics | grep ^ai_ticket_telemetry_spans_dropped_total"


async def test_a_killed_daemon_goes_on_where_it_was(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketDown", kobold=KoboldSettings(tokens_per_second=40)) as stage:
        await stage.leave(4, max_tokens=12)
        await stage.until(lambda s: s["in_flight"] == 1)
        assert await stage.stop(signal.SIGKILL) == -signal.SIGKILL
        await stage.alert_begins("AiTicketDown")
        assert "nobody listens" in await stage.shell("ai-ticketctl status", code=69)

        await stage.start()
        assert re.search("status +healthy", await stage.run("ai-ticketctl status"))
        await stage.run("ai-ticketctl audit")
        await stage.alert_ends("AiTicketDown")
        await stage.succeeded(4)


async def test_a_refused_reload_is_mended(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketReloadRefused") as stage:
        stage.configure("pipeline.max_concurency = 3")
        stage.process.send_signal(signal.SIGHUP)
        await stage.until_logged("reload_refused")
        await stage.alert_begins("AiTicketReloadRefused")
        assert (await stage.post()).is_success

        told = await stage.run("ai-ticketctl check-config", code=1)
        assert "did you mean `max_concurrency`?" in told
        stage.configure("pipeline.max_concurrency = 3", "http.max_connections = 50")
        await stage.run("ai-ticketctl check-config")
        plan = await stage.run("ai-ticketctl reload --plan")
        assert "pipeline.max_concurrency: 8 -> 3" in plan
        assert "http.max_connections: 1000 -> 50" in plan.partition("needs restart")[2]
        assert "applied" in await stage.run("ai-ticketctl reload")

        assert "successful 1.0" in await stage.run(RELOADED)
        await stage.alert_ends("AiTicketReloadRefused")


async def test_a_certificate_that_is_about_to_expire_is_renewed(rehearse: Rehearse) -> None:
    authority = trustme.CA()
    async with rehearse("AiTicketCertificateExpires") as stage:
        certificate, key = stage.folder / "c.pem", stage.folder / "k.pem"

        def issue(days: int) -> None:
            leaf = authority.issue_cert("localhost", not_after=now() + timedelta(days=days))
            certificate.write_bytes(leaf.cert_chain_pems[0].bytes())
            key.write_bytes(leaf.private_key_pem.bytes())

        issue(5)
        stage.configure(f'http.tls_cert = "{certificate}"', f'http.tls_key = "{key}"')
        stage.process.send_signal(signal.SIGHUP)
        await stage.until_logged("certificate_taken")
        await stage.alert_begins("AiTicketCertificateExpires")
        before = await stage.run(EXPIRY)
        assert "the certificate expires in 4 days" in await stage.run("ai-ticketctl status")

        issue(90)
        await stage.until_logged("certificate_taken", 2)
        await stage.run("ai-ticketctl check-config")
        after = await stage.run(EXPIRY)
        assert float(after.split()[-1]) - float(before.split()[-1]) > 80 * 86400
        assert "expires" not in await stage.run("ai-ticketctl status")
        await stage.alert_ends("AiTicketCertificateExpires")


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_part_that_crashes_is_reported(rehearse: Rehearse) -> None:
    program = (sys.executable, "-c", CRASHES_UPON_USR1)
    async with rehearse("AiTicketActorRestarts", program=program) as stage:
        stage.process.send_signal(signal.SIGUSR1)
        crashed = await stage.until_logged("actor_restarted")
        assert "ZeroDivisionError" in crashed["exception"]
        await stage.alert_begins("AiTicketActorRestarts")

        before = await stage.run(RESTARTS)
        assert 'actor="signals"} 1.0' in before
        await stage.run("ai-ticketctl bundle --output bundle.tar.gz")
        with tarfile.open(stage.folder / "bundle.tar.gz") as bundle:
            logs = bundle.extractfile("ai-ticket-bundle/logs.ndjson")
            assert logs is not None
            assert b"ZeroDivisionError" in logs.read()

        assert await stage.run(RESTARTS) == before
        await stage.run('ai-ticketctl submit "Hello" --max-tokens 4')


async def test_spans_reach_a_collector_that_is_back(rehearse: Rehearse) -> None:
    async with rehearse(
        "AiTicketSpansDropped",
        'telemetry.traces = "otlp"',
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_BSP_MAX_QUEUE_SIZE="4",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4",
    ) as stage:
        await lose_spans(stage)
        await stage.until_logged("collector_unreachable")
        await stage.alert_begins("AiTicketSpansDropped")

        assert 'reason="' in await stage.run(SPANS)
        look = "curl -sS -m 2 http://localhost:4318/"
        assert "Failed to connect" in await stage.run(look, code=7)
        with http_collector(port=stage.collector_port) as collector:
            await stage.run('ai-ticketctl submit "Hello" --max-tokens 4')
            await stage.until_logged("collector_reachable")
            dropped = await stage.run(SPANS)
            assert (await stage.post()).is_success
            assert collector.wait_for("kobold.get_completion")
            assert await stage.shell(SPANS) == dropped


async def lose_spans(stage: Stage) -> None:
    """Make spans that find no room, in two portions, so that a rate can be seen."""
    for portion in (1, 2):
        for _ in range(10):
            assert (await stage.post()).is_success
        await stage.sees(
            f"sum(ai_ticket_telemetry_spans_dropped_total{{{{{{instance}}}}}}) >= {portion}"
        )
