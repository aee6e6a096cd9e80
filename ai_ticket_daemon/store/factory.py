"""Which store the configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.store import StoreConfig
    from ai_ticket_daemon.store.port import EventStore, StoreObserver


def make_store(
    config: StoreConfig,
    *,
    max_queued: Callable[[], int],
    observer: StoreObserver,
    clock: Clock | None = None,
) -> EventStore:
    """Return the store of ``config.url``; it opens nothing before it is run."""
    if config.path is None:
        return MemoryStore(max_queued=max_queued)
    return SqliteStore(config.path, max_queued=max_queued, observer=observer, clock=clock)
