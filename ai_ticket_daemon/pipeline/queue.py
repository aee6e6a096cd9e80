"""What keeps queued events from being started, and new ones from being taken."""

from __future__ import annotations

PAUSED = "paused by an operator"
STOPPING = "the daemon is stopping"


class Hold:
    """Each of the two says in words why, and is None if nothing does.

    ``paused``: events are accepted and kept, none is started. ``draining``: no new ones are taken,
    and of those there are only what clients wait for is started.
    """

    def __init__(self) -> None:
        self.paused: str | None = None
        self.draining: str | None = None

    @property
    def why(self) -> str | None:
        """Why a queued event that nobody waits for is not started."""
        return self.paused or self.draining
