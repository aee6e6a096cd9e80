"""The sampler renders snapshots as gauges; it derives nothing, and nothing is asked of it."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import trio
from prometheus_client import CollectorRegistry

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.status.snapshot import QueueSnapshot
from ai_ticket_daemon.telemetry import sampler
from ai_ticket_daemon.telemetry.metrics import Metrics
from ai_ticket_daemon.testing.http import backend_snapshot, healthy
from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from ai_ticket_daemon.status.daemon_status import DaemonStatus
    from ai_ticket_daemon.status.snapshot import Snapshot
    from ai_ticket_daemon.telemetry.guard import Failures
    from ai_ticket_daemon.telemetry.logs.logs import Logs

PACKAGE = ROOT / "ai_ticket_daemon"


def test_no_metric_is_read_outside_of_telemetry() -> None:
    assert list(_readers()) == []


def _readers() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("telemetry", "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("collect", "get_sample_value"):
                read = ast.unparse(node)
                yield from [f"{path.name}: {read}"] if read != "gc.collect" else []


SPEEDS = {"prompt_tokens_per_second": 100.0, "written_tokens_per_second": None}


class Scripted:
    """Tells what the test says; the store can be read as long as ``readable``."""

    def __init__(self) -> None:
        self.current = replace(
            healthy(),
            in_flight=2,
            paused=True,
            backends=(
                backend_snapshot("a", "primary", "busy", active=True, max_in_flight=3, **SPEEDS),
            ),
            queue=QueueSnapshot(
                states={"queued": 4, "running": 2}, oldest_queued_seconds=9.0, difference=1
            ),
        )
        self.readable = True

    def snapshot(self) -> Snapshot:
        return self.current

    async def look(self) -> Snapshot:
        if not self.readable:
            raise StoreUnavailable("no space left")
        return self.current


async def test_the_gauges_show_the_snapshot_and_keep_the_queue_while_nobody_can_count_it(
    autojump_clock: MockClock,
) -> None:
    metrics, status = Metrics(CollectorRegistry()), Scripted()
    failures: list[str] = []

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"ai_ticket_{name}", labels)

    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                sampler.run,
                metrics=metrics,
                status=cast("DaemonStatus", status),
                logs=cast("Logs", SimpleNamespace(take_losses=lambda: 0)),
                failures=cast("Failures", SimpleNamespace(note=failures.append)),
            )
        )
        assert value("pipeline_in_flight") == 2
        assert value("order_in_force", order="paused") == 1
        assert value("order_in_force", order="draining") == 0
        assert value("kobold_backend_slots", backend="a") == 3
        assert value("kobold_backend_prompt_tokens_per_second", backend="a") == 100.0
        assert value("kobold_backend_written_tokens_per_second", backend="a") == 0
        assert value("pipeline_queue_depth", state="queued") == 4
        assert value("pipeline_oldest_queued_seconds") == 9.0
        assert value("store_difference") == 1
        status.readable = False
        status.current = replace(status.current, in_flight=1, queue=QueueSnapshot())
        await trio.sleep(5)
        assert value("pipeline_in_flight") == 1
        assert value("pipeline_queue_depth", state="queued") == 4
        nursery.cancel_scope.cancel()
    assert failures == []
