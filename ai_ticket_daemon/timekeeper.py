"""The timekeeper: an actor that notices when the clock of the host was set, and says so once.

It also writes down now and then what the time is, so that it goes on from there after a start of
the host, even if its clock was lost meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.clock import KEPT_UNDER
from ai_ticket_daemon.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.host.exhaustion import Exhaustion
    from ai_ticket_daemon.store.port import EventStore

LOOK_SECONDS = 1.0
"""How late a step is noticed; until then times are shown as if the clock had not been set."""

KEEP_SECONDS = 60.0
"""How often the time is written down."""

WRITE_SECONDS = 10.0


async def run(
    *,
    clock: Clock,
    store: EventStore,
    log: FilteringBoundLogger,
    note: Callable[[str], None],
    exhaustion: Exhaustion,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Look at the calendar every second; runs until cancelled.

    Args:
        clock: the daemon's.
        store: keeps the time.
        log: is told of a step.
        note: keeps what happened for whoever asks why an event took so long.
        exhaustion: is told of what the host lacks.
        task_status: started at once.
    """
    _look(clock, log, note)  # It may have been set while no daemon ran.
    task_status.started()
    keep_at = trio.current_time()
    while True:
        if trio.current_time() >= keep_at and await _keep(clock, store, exhaustion):
            keep_at = trio.current_time() + KEEP_SECONDS
        await trio.sleep(LOOK_SECONDS)
        if _look(clock, log, note):
            keep_at = trio.current_time()


def _look(clock: Clock, log: FilteringBoundLogger, note: Callable[[str], None]) -> bool:
    step = clock.look()
    if step == 0:
        return False
    direction = "forward" if step > 0 else "back"
    log.warning("clock_set", step_seconds=round(step, 3), ahead_seconds=round(clock.ahead, 3))
    by = f"{direction} by {abs(step):.1f} s"
    note(f"the clock of the host was set {by}; that moves no deadline nearer")
    return True


async def _keep(clock: Clock, store: EventStore, exhaustion: Exhaustion) -> bool:
    try:
        with trio.fail_after(WRITE_SECONDS):
            await store.remember(KEPT_UNDER, clock.note())
    except (StoreUnavailable, trio.TooSlowError):
        return False  # Said once by the store itself.
    except MemoryError as error:
        exhaustion.meets(error, "timekeeper")
        return False
    return True
