"""Collects garbage when that is short work: an actor.

The interpreter collects by itself when there are a quarter more objects than before, which is while
clients come by the thousand; and it looks at all that is kept for all of them in one go, a
microsecond for each object. So it collects only what is young by itself. What is old is collected
here: each minute while there is little, and after an hour however much there is.

That is no leak: what clients, requests and events leave behind is in no circle, and is freed
without a collection.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ai_ticket_daemon.host.exhaustion import Exhaustion

LOOK_SECONDS = 60.0
LITTLE = 25_000
"""So many objects are looked at within 25 ms."""
LONGEST_SECONDS = 3600.0

_YOUNG = 700
"""Objects made before the youngest are collected; the interpreter's own choice."""
_ROUNDS = 5
"""Of those collections, how many before the next older ones: half as many as by itself."""
_NEVER = 2**31 - 1


def old_objects() -> int:
    """Return how many objects a collection would look at."""
    return len(gc.get_objects(generation=2))


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage during a block, nor ever again among what is there at its end.

    For the start: nearly all that it makes stays, and looking through it takes a tenth of it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


async def run(
    *,
    exhaustion: Exhaustion,
    objects: Callable[[], int] = old_objects,
    collect: Callable[[], object] = gc.collect,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Collect what is old now and then; runs until cancelled."""
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG, _ROUNDS, _NEVER)
    try:
        task_status.started()
        collected_at = trio.current_time()
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            try:
                if objects() <= LITTLE or now - collected_at >= LONGEST_SECONDS:
                    collect()
                    collected_at = now
            except MemoryError as error:
                exhaustion.meets(error, "collector")
    finally:
        gc.set_threshold(*before)
