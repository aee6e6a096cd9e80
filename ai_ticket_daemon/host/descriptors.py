"""How many file descriptors there are, and how many of them clients may hold."""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ai_ticket_daemon.config.http import HttpConfig

MOST_WANTED = 65_536
"""What the unit asks systemd for."""
_LEAST_CONNECTIONS = 8
_KEPT = 64
"""For the store, the servers, the metrics page and operators, whatever clients do."""


def raise_limit() -> None:
    """Take as many as this process may have, up to ``MOST_WANTED``: the usual 1024 are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_WANTED if hard == resource.RLIM_INFINITY else min(hard, MOST_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return how many this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_WANTED if soft == resource.RLIM_INFINITY else soft


def within(descriptors: int, http: HttpConfig) -> HttpConfig:
    """Return ``http`` with so many connections that enough descriptors are left for the rest."""
    fitting = max(_LEAST_CONNECTIONS, descriptors * 3 // 4 - _KEPT)
    return replace(http, max_connections=min(http.max_connections, fitting))


def too_few_for(http: HttpConfig, descriptors: int) -> Iterator[str]:
    """Yield what there is to be said of so many descriptors."""
    fitting = within(descriptors, http).max_connections
    if fitting < http.max_connections:
        yield (
            f"http.max_connections: {descriptors} file descriptors are too few for "
            f"{http.max_connections} connections, so {fitting} are accepted at a time; raise the "
            "limit (LimitNOFILE of the unit, ulimit -n)"
        )
