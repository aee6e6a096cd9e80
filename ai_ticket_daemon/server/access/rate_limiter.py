"""How many requests each client may still make: one number per client, of so many clients.

A client that has made none for a while may make all its requests at once; each one comes back after
its share of the window. (The generic cell rate algorithm: what is kept is the moment at which
everything has come back.)
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

MAX_CLIENTS = 65_536
"""How many clients are remembered; the one that was silent longest makes room for another."""

_FORGOTTEN_PER_REQUEST = 2


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one client may still do, after this request.

    ``reset_seconds`` is the time until it has everything back; ``retry_after_seconds`` the time
    until the next request, None if this one was allowed.
    """

    limit: int
    window_seconds: float
    remaining: int
    reset_seconds: float
    retry_after_seconds: float | None

    def headers(self) -> dict[str, str]:
        """Return the ``RateLimit-*`` headers that tell a client so, in whole seconds."""
        return {
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(self.remaining),
            "ratelimit-reset": str(math.ceil(self.reset_seconds)),
            "ratelimit-policy": f"{self.limit};w={math.ceil(self.window_seconds)}",
        }


class RateLimiter:
    """Counts the requests of all clients."""

    def __init__(self, max_clients: int = MAX_CLIENTS) -> None:
        self._max_clients = max_clients
        # When each client has everything back; the one that was silent longest comes first.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(
        self, client: str, *, requests: int, window_seconds: float, now: float, cost: int = 1
    ) -> Allowance:
        """Count a request of ``client``, unless it has too little left.

        Args:
            client: who asks.
            requests: how many it may make per window; at least 1.
            window_seconds: the length of the window.
            now: seconds on a clock that never goes back.
            cost: how many requests this one counts for; at most ``requests``.
        """
        self._forget(now)
        share = window_seconds / requests
        owed = self._owed(client, window_seconds, now)
        short = _short(owed + cost * share, window_seconds)
        if short is None:
            owed += cost * share
            self._full_at[client] = now + owed
            self._full_at.move_to_end(client)
            if len(self._full_at) > self._max_clients:
                self._full_at.popitem(last=False)
        return Allowance(
            limit=requests,
            window_seconds=window_seconds,
            remaining=max(math.floor((window_seconds - owed) / share + 1e-6), 0),
            reset_seconds=owed,
            retry_after_seconds=short,
        )

    def wait_seconds(
        self, client: str, *, requests: int, window_seconds: float, now: float
    ) -> float | None:
        """Return the time until ``client`` has a request left, None if it has; counts nothing."""
        share = window_seconds / requests
        return _short(self._owed(client, window_seconds, now) + share, window_seconds)

    def _owed(self, client: str, window_seconds: float, now: float) -> float:
        # After a reload to a shorter window nobody has to wait longer than that.
        return min(max(self._full_at.get(client, now) - now, 0.0), window_seconds)

    def _forget(self, now: float) -> None:
        """Drop a few clients that have everything back: they are as good as new."""
        for _ in range(_FORGOTTEN_PER_REQUEST):
            client, full_at = next(iter(self._full_at.items()), ("", math.inf))
            if full_at > now:
                return
            del self._full_at[client]


def _short(needed: float, window_seconds: float) -> float | None:
    """Return by how much ``needed`` is more than the window; None if it is not."""
    # The fraction stands for rounding: the last request of a full allowance must fit.
    return None if needed <= window_seconds * (1 + 1e-9) else needed - window_seconds
