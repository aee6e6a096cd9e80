"""How long a server is left alone that answers, and takes no generation now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.config.backends import BackendsConfig

SHORTEST_PAUSE_SECONDS = 0.1


@dataclass(slots=True)
class Pause:
    """Until when (seconds, monotonic) nothing is sent to a server; None if it is not left alone.

    Because it was busy with requests of others ``refusals`` times in a row, or because it
    ``reads_on``: it was told to stop while it read a prompt, and stops when it has read that.
    """

    until: float | None = None
    refusals: int = 0
    reads_on: bool = False

    def end(self) -> None:
        """Leave the server alone no longer."""
        self.until, self.reads_on = None, False


def pause_seconds(
    refusals: int, retry_after_seconds: float | None, jitter: float, rules: BackendsConfig
) -> float:
    """Return how long to wait before a server that answered ``503`` is tried again.

    Doubles up to the probe interval, half of it random, so that several daemons in front of one
    server do not come back together; the server's own wish is honoured.

    Args:
        refusals: how often it was busy in a row, this time included.
        retry_after_seconds: the server's own wish, if it named one.
        jitter: a random number from 0 to 1.
        rules: ``probe_interval_seconds``.
    """
    bound = min(rules.probe_interval_seconds, SHORTEST_PAUSE_SECONDS * 2.0 ** min(refusals, 16))
    return max(bound * (1 + jitter) / 2, retry_after_seconds or 0.0)
