"""How fast access tokens can be guessed: a few unknown ones of an address, then none is looked at.

Once an address has used up its guesses, right and wrong tokens from it are answered alike, so that
guessing on tells nothing. Tokens that were used from it before go on working: whoever shares the
address with a guesser, behind one router or one proxy, notices nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ai_ticket_daemon.server.access.rate_limiter import MAX_CLIENTS, RateLimiter

if TYPE_CHECKING:
    from ai_ticket_daemon.config.values.tokens import Token

GUESSES = 10
WINDOW_SECONDS = 60.0
"""An address may show so many unknown tokens at once, and gets them back evenly over this time."""


class Guesses:
    """Counts the unknown tokens of all addresses, and remembers which known ones they showed."""

    def __init__(self, max_familiar: int = MAX_CLIENTS) -> None:
        self._unknown = RateLimiter()
        self._max_familiar = max_familiar
        # Addresses with the tokens they used; what was used longest ago comes first.
        self._familiar: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def wait_seconds(self, address: str, token: Token | None, now: float) -> float | None:
        """Return how long ``address`` has to wait before a token of it is looked at; None if not.

        Args:
            address: where the token comes from.
            token: what it was found to be; None if it is unknown, which counts as a guess.
            now: seconds on a clock that never goes back.
        """
        known_here = None if token is None else (address, token.digest)
        if known_here is not None and known_here in self._familiar:
            self._familiar.move_to_end(known_here)
            return None
        wait = self._unknown.wait_seconds(
            address, requests=GUESSES, window_seconds=WINDOW_SECONDS, now=now
        )
        if wait is not None:
            return wait
        if known_here is None:
            self._unknown.take(address, requests=GUESSES, window_seconds=WINDOW_SECONDS, now=now)
        else:
            self._familiar[known_here] = None
            if len(self._familiar) > self._max_familiar:
                self._familiar.popitem(last=False)
        return None
