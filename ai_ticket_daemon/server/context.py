"""The server context: what the HTTP surface needs, and what every handler is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.host.exhaustion import Exhaustion

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from ai_ticket_daemon.config.events import EventsConfig
    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.host.memory_budget import MemoryBudget
    from ai_ticket_daemon.server.access.access_control import AccessControl
    from ai_ticket_daemon.server.ports import HealthView, Pipeline, RequestObserver
    from ai_ticket_daemon.server.routes import Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """What the HTTP surface needs of the rest, and what its handlers share.

    ``http`` and ``events`` return the settings in force now. ``heartbeat_seconds`` is the longest
    silence in a stream; ``write_timeout_seconds`` how long a client may refuse to read before it
    counts as gone. ``now`` returns seconds since the Unix epoch.
    """

    routes: Routes
    openapi: bytes
    """The description of the routes as it is served."""
    pipeline: Pipeline
    health: HealthView
    http: Callable[[], HttpConfig]
    events: Callable[[], EventsConfig]
    access: AccessControl
    observer: RequestObserver
    logger: logging.Logger
    heartbeat_seconds: float
    write_timeout_seconds: float
    now: Callable[[], float]
    memory: MemoryBudget
    exhaustion: Exhaustion = field(default_factory=Exhaustion)
    heavy_work: trio.Lock = field(default_factory=trio.Lock)
    """Held by whoever reads a large body, so that few of them take the memory and the turns."""
