"""The daemon with a meter of how long its event loop is silent: metered_daemon.py METER OPTION...

METER is a file of two numbers (see ``attack_watch.Meter``), which the test reads and sets back.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio
from attack_watch import Meter

from ai_ticket_daemon import __main__ as daemon
from ai_ticket_daemon import app

INTERVAL_SECONDS = 0.01


class Metered(app.Daemon):
    """Measures its own loop all the while."""

    async def run(
        self, *, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure)
            await super().run(task_status=task_status)
            nursery.cancel_scope.cancel()


async def measure() -> None:
    """Note the latest wake-up; of one that is late, only what this process is to blame for.

    On a machine that others use, a wake-up is also late because somebody else has the processor:
    then this process has used no time of it meanwhile. A loop that computes, or waits for a thread
    that computes and holds the interpreter, has.
    """
    while True:
        began, used, own = time.monotonic(), time.process_time(), time.thread_time()
        await trio.sleep(INTERVAL_SECONDS)
        late = time.monotonic() - began - INTERVAL_SECONDS
        METER.note(min(late, time.process_time() - used), late, min(late, time.thread_time() - own))


METER = Meter(Path(sys.argv[1]))
vars(app).update(Daemon=Metered)
sys.exit(daemon.main(sys.argv[2:]))
