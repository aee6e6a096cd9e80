"""The signals: an actor that turns what the host sends into calls. See ``docs/signals.md``.

They are received from the start of the daemon to its end, also while the actor is started again:
what Linux does by default would end the process. What arrives meanwhile is done afterwards.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping


async def run(
    *,
    received: AsyncIterator[int],
    actions: Mapping[signal.Signals, Callable[[], None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call the action of each signal that arrives, one after the other; runs until cancelled.

    Args:
        received: yields the signals; opened by whoever starts this.
        actions: what to do at each.
        task_status: started at once.
    """
    task_status.started()
    async for number in received:
        actions[signal.Signals(number)]()
