"""The clock of the daemon: time that goes on steadily, whatever happens to the calendar.

Somebody may set the clock of the host. What is measured, and what is due, must not notice: so all
times in the store and in the pipeline are of a clock that is set once, from the calendar, and then
follows the time since the host was started (``CLOCK_BOOTTIME``, which also counts sleep and cannot
be set). How far the calendar has come to be ahead of it is kept beside it, and only added where a
time is shown to somebody.

What makes the clock go on over a restart is a :class:`Timeline`, a small note in the store, so that
all daemons at one store have the same time.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT_UNDER = "timeline"
"""The key of the note in the store."""

STEP_SECONDS = 0.1
"""From here on the calendar was set; less is what reading two clocks one after the other costs."""

_READ_SECONDS = 0.001
_TRIES = 20

BOOT_ID_VARIABLE = "BOOT_ID"
"""Where the unit says in which boot it was started."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE = Path("/proc/self/ns/time")


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks of the host at one moment.

    ``boot`` names the start of the host that ``elapsed`` seconds have passed since; ``calendar`` is
    seconds since the Unix epoch.
    """

    boot: str
    elapsed: float
    calendar: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """How to go on with the time.

    In the named boot of the host, the time is what has ``elapsed`` since and ``offset``. When it
    was ``seen_at``, the calendar was ``ahead`` of it, by less than nothing if it was behind.
    """

    boot: str
    offset: float
    ahead: float
    seen_at: float

    def at(self, reading: Reading) -> float:
        """Return the time at which the clocks were read."""
        return reading.elapsed + self.offset


def begin(reading: Reading) -> Timeline:
    """Return a time that starts with what the calendar says."""
    return Timeline(reading.boot, reading.calendar - reading.elapsed, 0.0, reading.calendar)


def go_on(kept: Timeline | None, reading: Reading) -> Timeline:
    """Return the timeline that goes on where the one that was ``kept`` ended.

    In the same boot of the host, as much time has passed as its steady clock says. Over a start of
    the host nobody counted: as much as the calendar says, and if that is less than none, none.
    """
    if kept is None:
        return begin(reading)
    if kept.boot == reading.boot and kept.at(reading) > kept.seen_at - STEP_SECONDS:
        return kept
    now = max(reading.calendar - kept.ahead, kept.seen_at)
    return Timeline(reading.boot, now - reading.elapsed, reading.calendar - now, now)


def look(timeline: Timeline, reading: Reading) -> tuple[Timeline, float]:
    """Return the timeline as of now, and by how much the calendar was set; 0: it was not."""
    now = timeline.at(reading)
    ahead = reading.calendar - now
    step = ahead - timeline.ahead
    if abs(step) < STEP_SECONDS:
        return replace(timeline, seen_at=now), 0.0
    return replace(timeline, seen_at=now, ahead=ahead), step


def boot_of_host(environ: Mapping[str, str]) -> str:
    """Name the start of the host, and the namespace in which its steady clock is read."""
    named = []
    try:
        named.append(_BOOT_ID.read_text().strip().replace("-", ""))
    except OSError:  # the unit shows of /proc nothing but processes
        named.append(environ.get(BOOT_ID_VARIABLE, ""))
    with suppress(OSError):  # older kernels have none
        named.append(str(_TIME_NAMESPACE.readlink()))
    return " ".join(named)


def read_host(boot: str) -> Reading:
    """Read the clocks of the host, at one moment as nearly as that can be."""
    readings = []
    for _ in range(_TRIES):
        before, calendar, after = _elapsed(), time.time(), _elapsed()
        readings.append((after - before, Reading(boot, (before + after) / 2, calendar)))
        if after - before < _READ_SECONDS:
            break
    return min(readings, key=lambda found: found[0])[1]


def _elapsed() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Tells the time; begins with the calendar and goes on with what the store kept.

    Args:
        read: reads the clocks of the host; None for the usual way.
        elapsed: the steady one of them alone.
    """

    def __init__(
        self,
        read: Callable[[], Reading] | None = None,
        elapsed: Callable[[], float] = _elapsed,
    ) -> None:
        self._read = read or partial(read_host, boot_of_host(os.environ))
        self._elapsed = elapsed
        self._timeline = begin(self._read())

    def now(self) -> float:
        """Return the time: seconds since the Unix epoch, as the calendar had it at first."""
        return self._elapsed() + self._timeline.offset

    @property
    def ahead(self) -> float:
        """By how much the calendar is ahead: add it to a time that is shown to somebody."""
        return self._timeline.ahead

    def go_on(self, kept: str | None) -> str:
        """Go on where an earlier process, or another one at this moment, is; return what to keep.

        A note that cannot be read is as none: the time begins anew.
        """
        self._timeline = go_on(_decode(kept), self._read())
        return self.note()

    def look(self) -> float:
        """Compare with the calendar; return by how much that was set since; 0: it was not."""
        self._timeline, step = look(self._timeline, self._read())
        return step

    def note(self) -> str:
        """Return what has to be kept for :meth:`go_on`."""
        return msgspec.json.encode(self._timeline).decode()


def _decode(kept: str | None) -> Timeline | None:
    if kept is None:
        return None
    try:
        return msgspec.json.decode(kept, type=Timeline)
    except msgspec.MsgspecError:
        return None
