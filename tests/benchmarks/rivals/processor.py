"""Which core does what, and what a process took of it."""

from __future__ import annotations

import os
from pathlib import Path

SERVED_ON, LOADED_FROM = 0, 1
"""The core of whatever is measured, and that of the clients and of the server behind it."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_tree(pid: int) -> float:
    """Return the time of a process and of all that descend from it."""
    parents: dict[int, int] = {}
    times: dict[int, float] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(file.parent.name)
        parents[number] = int(fields[1])
        times[number] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return sum(seconds for number, seconds in times.items() if _descends(number, pid, parents))


def _descends(number: int, ancestor: int, parents: dict[int, int]) -> bool:
    while number in parents:
        if number == ancestor:
            return True
        number = parents[number]
    return False
