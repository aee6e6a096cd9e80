"""How long an event loop is silent, by a yardstick: milliseconds are not the same on each machine.

A processor that is slow, or shares its memory with busy neighbours, takes up to three times as long
for the same work. So what was measured is divided by how long known work takes at that moment, and
what was too long once may be measured again: only what is too long each time is a finding.
"""

from __future__ import annotations

import gc
import mmap
import statistics
import struct
import time
from typing import TYPE_CHECKING

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

INTERVAL_SECONDS = 0.01
WORK = b"[" + b'{"a":[]},' * 8000 + b"0]"
"""What attacks are made of: many small objects, for which memory counts as much as computing."""
WORK_SECONDS = 0.0025
"""How long a processor takes for it that is left alone, where the limits of the tests were set."""
MOST_SLOWNESS = 3.0
"""No machine is taken to be slower: three times the limit is too long anywhere."""
WORTH_SECONDS = 0.02
"""A silence that no limit of the tests forbids: the yardstick is not read for it."""
TRIES = 3


def slowness() -> float:
    """Return how many times as long as usual known work takes here and now; at least 1."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        took = statistics.median(_work() for _ in range(3))
    finally:
        if was_enabled:
            gc.enable()
    return min(max(took / WORK_SECONDS, 1.0), MOST_SLOWNESS)


def _work() -> float:
    began = time.thread_time()
    msgspec.json.decode(WORK)
    return time.thread_time() - began


async def least(measured: Callable[[], Awaitable[float]], enough: float) -> float:
    """Return the least of what is measured in up to three tries; one is enough if it is so low."""
    found = await measured()
    for _ in range(TRIES - 1):
        if found <= enough:
            break
        found = min(found, await measured())
    return found


class Meter:
    """How long the event loop was silent at most, in a file that two processes share."""

    _numbers = struct.Struct("ddd")

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(self._numbers.pack(0.0, 0.0, 0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), self._numbers.size)

    def note(self, lag_seconds: float, late_seconds: float, own_seconds: float) -> None:
        """Keep these, if they are the worst so far."""
        worst, now = self.worst(), (lag_seconds, late_seconds, own_seconds)
        if any(new > old for new, old in zip(now, worst, strict=True)):
            self._write(*map(max, now, worst))

    def worst(self) -> tuple[float, float, float]:
        """Return the longest silence by the process's own fault, by any, and by the loop's thread.

        The first counts what other threads of the process compute meanwhile, the last does not.
        Both are by the yardstick, the second is not.
        """
        lag_seconds, late_seconds, own_seconds = self._numbers.unpack(self._shared[:])
        return lag_seconds, late_seconds, own_seconds

    def reset(self) -> None:
        """Begin anew."""
        self._write(0.0, 0.0, 0.0)

    def _write(self, *seconds: float) -> None:
        self._shared[:] = self._numbers.pack(*seconds)


async def measure(meter: Meter) -> None:
    """Note the latest wake-up; of one that is late, only what this process is to blame for.

    On a machine that others use, a wake-up is also late because somebody else has the processor:
    then this process has used no time of it meanwhile. A loop that computes, or waits for a thread
    that computes and holds the interpreter, has.
    """
    while True:
        began, used, own = time.monotonic(), time.process_time(), time.thread_time()
        await trio.sleep(INTERVAL_SECONDS)
        late = time.monotonic() - began - INTERVAL_SECONDS
        lag = min(late, time.process_time() - used)
        own = min(late, time.thread_time() - own)
        by = slowness() if lag > WORTH_SECONDS else 1.0
        meter.note(lag / by, late, own / by)
