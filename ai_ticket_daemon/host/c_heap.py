"""What the C library does with memory that was freed: by itself it keeps most of it for ever."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 128 * 1024
"""From this size on, memory is taken from the system by itself, and given back when it is freed."""

_MMAP_THRESHOLD = -3  # of mallopt(3)


def keep_large_apart() -> None:
    """Never mix what is large with what is small; where the C library cannot, nothing happens.

    By itself it does so only until the first large piece is freed. From then on a body of a
    megabyte leaves holes between the objects of whoever waits, and what is freed goes nowhere.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)


def trim() -> None:
    """Give back what is not used; where the C library cannot, nothing happens."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
