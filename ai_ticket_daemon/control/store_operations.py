"""What an operator can ask for about the store: to recount it, and to copy it."""

from __future__ import annotations

import os
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.control.arguments import Nothing
from ai_ticket_daemon.control.operation import Access, Operation
from ai_ticket_daemon.store.sqlite.audit import audit_file

if TYPE_CHECKING:
    from ai_ticket_daemon.store.port import EventStore

BACKUP_SECONDS = 600.0


class StoreOperations:
    """Carries out what is asked about the store.

    Args:
        store: is copied.
        path: its file; None for a store in memory.
    """

    def __init__(self, store: EventStore, path: Path | None) -> None:
        self._store = store
        self._path = path
        self._backups = count(1)
        # A recount reads the whole store; several at once would take the threads of others.
        self._recounts = trio.CapacityLimiter(1)

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be asked for."""
        return (
            Operation("audit", Access.LOOK, Nothing, self._audit),
            Operation("backup", Access.ACT, Nothing, self._backup, seconds=BACKUP_SECONDS),
        )

    async def _audit(self, _: Nothing) -> object:
        path = self._path
        if path is None:
            counts = await self._store.counts()
            found = {"accepted": counts.accepted, "difference": counts.difference}
            return found | {"states": dict(counts.states), "problems": []}
        audit = await trio.to_thread.run_sync(audit_file, path, limiter=self._recounts)
        return asdict(audit) | {"difference": audit.difference}

    async def _backup(self, _: Nothing) -> object:
        path = self._path or Path("backup")
        target = path.with_name(f"{path.name}.backup-{os.getpid()}-{next(self._backups)}")
        await self._store.backup(target)
        return target
