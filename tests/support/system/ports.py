"""Ports for the processes that tests start."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, NUMBER = 10_000, 20_000
"""Below the ports that the kernel gives to clients: nobody is given one of these by chance."""

_next = itertools.count(os.getpid() * 101)  # test processes that run side by side begin apart


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that nobody listens on.

    A port is handed out once by each test process, so tests that run side by side do not meet.
    """
    found: list[int] = []
    while len(found) < count:
        port = FIRST + next(_next) % NUMBER
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
    return found


def free_port() -> int:
    """Return one such port."""
    return free_ports(1)[0]
