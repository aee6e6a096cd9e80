"""A clock for tests, which own the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.clock import Clock, Reading

if TYPE_CHECKING:
    from collections.abc import Callable


class HostClocks:
    """The clocks of a host, as a test sets them.

    Args:
        elapsed: seconds since the host was started.
        calendar: seconds since the Unix epoch.
        boot: names the start of the host.
    """

    def __init__(
        self, elapsed: float = 0.0, calendar: float = 1_000_000.0, boot: str = "first"
    ) -> None:
        self.elapsed = elapsed
        self.calendar = calendar
        self.boot = boot

    def read(self) -> Reading:
        """Read both."""
        return Reading(self.boot, self.elapsed, self.calendar)

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds
        self.calendar += seconds

    def clock(self) -> Clock:
        """Return the clock of a daemon on this host."""
        return Clock(self.read, lambda: self.elapsed)


def clock_of(now: Callable[[], float]) -> Clock:
    """Return a clock that tells the time ``now`` returns, on a host whose clock nobody sets."""
    return Clock(lambda: Reading("first", now(), now()), now)
