"""Event ids: UUID version 7, time-ordered text (RFC 9562 section 5.7)."""

from __future__ import annotations

import secrets
import time
import uuid


def new_event_id() -> str:
    """Return a fresh UUIDv7; ids made in different milliseconds sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80
    value |= secrets.randbits(76)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_event_id(text: str) -> bool:
    """Tell whether ``text`` has the canonical form of an event id."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
