"""The watchdog's feeder: an actor that tells systemd that the daemon lives, and how it is doing.

It runs in the event loop, so that a blocked loop feeds nobody, and it feeds only while every part
keeps its promises (:mod:`ai_ticket_daemon.liveness`). What happens to a daemon that is not fed for
is systemd's decision: it ends the process and starts it anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ai_ticket_daemon.liveness import Liveness
    from ai_ticket_daemon.systemd.notify import Systemd

LONGEST_INTERVAL_SECONDS = 2.0
FEEDS_PER_LIMIT = 4
"""How often the watchdog is fed within its time limit: some may be late, or lost."""
STOP_EXTENSION_SECONDS = 30.0
"""How long the rest of a stop may take once nothing more is said about it."""


async def run(
    *,
    systemd: Systemd,
    liveness: Liveness,
    status: Callable[[], str],
    draining: Callable[[], bool],
    starved: Callable[[Sequence[str]], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Feed the watchdog and keep the status line up to date; runs until cancelled.

    Args:
        systemd: who is told, and how often.
        liveness: which parts make progress.
        status: the line an operator wants to see.
        draining: whether a stop waits for generations, and needs time for that.
        starved: told which parts have hung, once for each set of them.
        task_status: started at once.
    """
    interval = LONGEST_INTERVAL_SECONDS
    if systemd.watchdog_seconds is not None:
        interval = min(interval, systemd.watchdog_seconds / FEEDS_PER_LIMIT)
    shown = ""
    hung: list[str] = []
    task_status.started()
    while True:
        before, hung = hung, liveness.overdue()
        if not hung:
            systemd.notifier.watchdog()
        elif hung != before:
            starved(hung)
        if draining():
            systemd.notifier.extend_timeout(STOP_EXTENSION_SECONDS)
        line = status()
        if line != shown and systemd.notifier.status(line):
            shown = line
        await trio.sleep(interval)
