"""The daemon with a meter of how long its event loop is silent: metered_daemon.py METER OPTION...

METER is a file of three numbers (see ``loop_meter.Meter``), which the test reads and sets back.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from ai_ticket_daemon import __main__ as daemon
from ai_ticket_daemon import app
from tests.support.attacks.loop_meter import Meter, measure


class Metered(app.Daemon):
    """Measures its own loop all the while."""

    async def run(
        self, *, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure, METER)
            await super().run(task_status=task_status)
            nursery.cancel_scope.cancel()


METER = Meter(Path(sys.argv[1]))
vars(app).update(Daemon=Metered)
sys.exit(daemon.main(sys.argv[2:]))
