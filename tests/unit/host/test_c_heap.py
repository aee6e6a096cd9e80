from __future__ import annotations

import subprocess
import sys

from ai_ticket_daemon.host import c_heap

PROGRAM = """
from ai_ticket_daemon.host.c_heap import LARGE_BYTES, keep_large_apart

def mappings():
    return len(open("/proc/self/maps").readlines())

keep_large_apart()
for _ in range(3):  # the first large piece that is freed raises the size by itself
    before = mappings()
    large = [bytearray(1024 * 1024), bytearray(LARGE_BYTES)]
    resident = open("/proc/self/statm").read().split()[0]
    large.clear()
    assert int(resident) - int(open("/proc/self/statm").read().split()[0]) > 256, "it is kept"
"""


def test_the_c_library_takes_the_call() -> None:
    c_heap.trim()


def test_large_memory_goes_back_as_soon_as_it_is_freed() -> None:
    """In a process of its own: what is set holds for the whole of one."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
