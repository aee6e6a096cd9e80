"""The signals: an actor that turns what the host sends into calls. See ``docs/signals.md``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


async def run(
    *,
    actions: Mapping[signal.Signals, Callable[[], None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call the action of each signal that arrives, one after the other; runs until cancelled."""
    with trio.open_signal_receiver(*actions) as received:
        task_status.started()
        async for number in received:
            actions[signal.Signals(number)]()
