"""Event ids: UUID version 7, time-ordered text (RFC 9562 section 5.7)."""

from __future__ import annotations

import os
import uuid


def new_event_id(now: float) -> str:
    """Return a fresh UUIDv7; ids made in different milliseconds sort by time.

    Args:
        now: seconds since the Unix epoch, on a clock that never goes back.
    """
    # Written out by hand: a batch needs thousands, and uuid.UUID takes three times as long.
    since_epoch = f"{max(0, int(now * 1000)):012x}"
    random = os.urandom(10).hex()
    variant = "89ab"[int(random[3], 16) & 3]
    return (
        f"{since_epoch[:8]}-{since_epoch[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"
    )


def is_event_id(text: str) -> bool:
    """Tell whether ``text`` has the canonical form of an event id."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
