"""Gives memory back to the system when large requests, or many clients, are over: an actor.

The allocator of the C library keeps what was freed, piece by piece between what is still in use,
and would keep most of it for ever.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.host.c_heap import trim

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.host.exhaustion import Exhaustion
    from ai_ticket_daemon.host.memory_budget import MemoryBudget

LOOK_SECONDS = 5.0
WORTH_BYTES = 4 * 1024 * 1024
"""How much requests must have taken for the memory to be tidied afterwards."""
WORTH_OBJECTS = 50_000
"""How many objects must have gone for the same: those of some hundred clients."""


async def run(
    *,
    memory: MemoryBudget,
    exhaustion: Exhaustion,
    objects: Callable[[], int] = sys.getallocatedblocks,
    give_back: Callable[[], None] = trim,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Look now and then whether much was in use and is no more; runs until cancelled."""
    task_status.started()
    most_bytes, most_objects = 0, 0
    while True:
        await trio.sleep(LOOK_SECONDS)
        most_bytes = max(most_bytes, memory.take_peak())
        most_objects = max(most_objects, left := objects())
        bodies_are_over = most_bytes >= WORTH_BYTES and memory.used_bytes < most_bytes // 4
        if bodies_are_over or most_objects - left >= WORTH_OBJECTS:
            try:
                # In a thread: it takes some ten milliseconds, without the interpreter.
                await trio.to_thread.run_sync(give_back)
            except Exception as error:
                # Just then it is worth most: it is tried again at the next look.
                if exhaustion.meets(error, "trimmer") is None:
                    raise
            else:
                most_bytes, most_objects = 0, left
