"""What software runs at a server's end, as far as it tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Software:
    """The version of a server and what it can do beyond the oldest one.

    ``version`` None: it does not tell. ``newer``: than every version whose behaviour is known, so
    that it is treated as the newest of those. ``better_kind``: the ``kind`` that it should be
    configured as; None if it is. ``unanswered``: paths that it leaves without an answer, so that
    what they would tell is not known.
    """

    version: str | None = None
    features: tuple[str, ...] = ()
    newer: bool = False
    better_kind: str | None = None
    unanswered: tuple[str, ...] = ()


NOTHING_TOLD = Software()
