"""The daemon with its telemetry on, its journal led elsewhere; or with none at all.

measured_daemon.py CONF JOURNAL_SOCKET    metrics, traces and logs as the conf file says
measured_daemon.py CONF off               nobody looks on: no metrics, no spans, errors only
"""

from __future__ import annotations

import sys
from functools import partial

import trio

from ai_ticket_daemon import __main__ as daemon
from ai_ticket_daemon import app
from ai_ticket_daemon.pipeline.observer import PipelineObserver
from ai_ticket_daemon.server.ports import RequestObserver
from ai_ticket_daemon.telemetry import instrumentation
from ai_ticket_daemon.telemetry.logs import logs


class Announced(app.Daemon):
    """Prints its address: with journald, nothing else is written to where the test reads."""

    async def run(
        self, *, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(super().run)
            print(f"ready on {addresses[0]}", flush=True)
            task_status.started(addresses)


_, conf, journal = sys.argv
vars(app).update(Daemon=Announced)
if journal == "off":
    vars(instrumentation).update(
        QuietHttpTelemetry=lambda *_: RequestObserver(),
        PipelineTelemetry=lambda *_: PipelineObserver(),
        InstrumentedClient=lambda client, *_: client,
    )
else:
    vars(logs).update(Logs=partial(logs.Logs, journal_path=journal))
sys.exit(daemon.main(["--config", conf]))
