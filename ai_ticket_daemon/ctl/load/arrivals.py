"""How the events of a load test arrive.

Open-loop: events arrive when they arrive, whether the earlier ones have ended or not, as the events
of real clients do. A generator that waits for answers measures a slow server as a busy one with few
clients (Schroeder et al., "Open Versus Closed", NSDI 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_OPEN = 1000
"""So many events may be under way at a time."""
MAX_OPEN_SOCKET = 48
"""On the control socket, which has 64 connections: operators need the others."""
PAUSE_AFTER_ERROR_SECONDS = 0.5
"""So long a closed-loop client waits before it sends again: refusals cost a server little."""


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Events that arrive at random, as a Poisson process does, ``rate`` of them per second."""

    rate: float
    seed: int = 1


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many clients; each sends its next event when the last one has been answered."""

    clients: int
