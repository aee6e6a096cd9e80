"""Liveness: which parts of the daemon still make progress. What the watchdog is fed on.

A part promises with each beat when the next one comes. One that keeps no promise has hung, even
while the event loop turns and everything looks well from outside.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

SLACK_SECONDS = 10.0
"""What every promise is allowed to be late by: a busy host is no hung daemon."""


@dataclass(slots=True)
class Liveness:
    """The promises of all parts, by the name of their actor and their own."""

    _due: dict[tuple[str, str], float] = field(default_factory=dict)

    def pulse(self, actor: str) -> Pulse:
        """Return the pulse of one actor; what an earlier life of it had promised is forgotten."""
        for known in [key for key in self._due if key[0] == actor]:
            del self._due[known]
        return Pulse(self, actor)

    def expect(self, actor: str, part: str, within_seconds: float) -> None:
        """Note that the next beat is promised within that time."""
        self._due[actor, part] = trio.current_time() + within_seconds + SLACK_SECONDS

    def forget(self, actor: str, part: str) -> None:
        """Expect no further beat."""
        self._due.pop((actor, part), None)

    def overdue(self) -> list[str]:
        """Return the parts that have broken their promise, such as ``prober: standby``."""
        now = trio.current_time()
        return [f"{actor}: {part}" for (actor, part), due in self._due.items() if due < now]


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one actor beats with; each of its tasks is a part."""

    liveness: Liveness
    actor: str

    def beat(self, part: str, within_seconds: float) -> None:
        """Progress was made, and will be again within ``within_seconds``."""
        self.liveness.expect(self.actor, part, within_seconds)

    def end(self, part: str) -> None:
        """The part is done, in good order."""
        self.liveness.forget(self.actor, part)
