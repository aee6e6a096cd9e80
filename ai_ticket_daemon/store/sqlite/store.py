"""The event store in a SQLite file, shared by all daemons of one host.

Writes go through the writer, which commits them in groups; questions through the reader. What each
of them does is in ``intake.py``, ``leases.py``, ``endings.py`` and ``queries.py``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import trio

from ai_ticket_daemon.clock import KEPT_UNDER, Clock
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.store.port import KEPT_CHANGES
from ai_ticket_daemon.store.sqlite import backup, place
from ai_ticket_daemon.store.sqlite.faults import CLOSED, explain
from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLock, TooManyInstances
from ai_ticket_daemon.store.sqlite.reader import Reader
from ai_ticket_daemon.store.sqlite.statements import endings, intake, leases, orders, queries
from ai_ticket_daemon.store.sqlite.statements.totals import read_counts
from ai_ticket_daemon.store.sqlite.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import apsw

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.store.port import (
        Beginnings,
        Change,
        Counts,
        EventFilter,
        EventPage,
        EventRecord,
        Lease,
        Order,
        Preference,
        Receipt,
        StoreObserver,
    )
    from ai_ticket_daemon.store.sqlite.log_file import LogFile
    from ai_ticket_daemon.store.sqlite.statements.transaction import Transaction

P = ParamSpec("P")
T = TypeVar("T")

LONG_BATCH = 50
LONG_TEXT = 65_536
"""Events, or characters, from which on a submission would keep the event loop waiting."""


class SqliteStore:
    """Keeps events in the file ``path``.

    Args:
        path: the file; made if it is missing, as is its directory.
        max_queued: how many events may wait, asked at each submission.
        observer: is told when the store fails and recovers.
        vfs: SQLite's name of the file system to use; None for the usual one.
        log: syncs the log; None for the usual way.
        clock: tells the time; goes on from what the store kept of it.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_queued: Callable[[], int],
        observer: StoreObserver,
        vfs: str | None = None,
        log: LogFile | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._max_queued = max_queued
        self._observer = observer
        self._vfs = vfs
        self._log = log
        self._clock = clock or Clock()
        self._writer: Writer | None = None
        self._instance_lock: InstanceLock | None = None
        self._reader: Reader | None = None
        self._data_version: int | None = None
        # No claim finds anything before this moment; spares a transaction for nothing.
        self._nothing_before = 0.0

    @property
    def fault(self) -> str | None:
        """See :attr:`EventStore.fault`."""
        return CLOSED if self._writer is None else self._writer.fault

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See :meth:`EventStore.run`; started with the earlier daemon's work recovered."""
        try:
            path = self._path = place.resolve(self._path)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            lock = InstanceLock.take(path)
        except (OSError, TooManyInstances) as error:
            raise StoreUnavailable(f"{self._path}: {explain(error)}") from error
        reader = Reader(path, vfs=self._vfs)
        writer = Writer(
            path,
            lock,
            self._observer,
            on_open=self._opened_anew,
            log=self._log,
            vfs=self._vfs,
        )
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(writer.run)
                self._writer, self._reader, self._instance_lock = writer, reader, lock
                self._opened_anew()
                await self._write(self._go_on, durable=True)
                self._recovered(
                    await self._write(
                        partial(leases.recover_own, now=self._clock.now()), durable=True, long=True
                    )
                )
                task_status.started()
        finally:
            self._writer = self._reader = self._instance_lock = None
            await reader.aclose()
            lock.release()

    async def submit(
        self, events: Sequence[Event], *, owned: bool, beginnings: Beginnings = None
    ) -> list[Receipt]:
        """See :meth:`EventStore.submit`."""
        operation = partial(
            intake.submit,
            events=events,
            owned=owned,
            beginnings=beginnings,
            max_queued=self._max_queued(),
        )
        try:
            return await self._write(operation, durable=True, long=_is_long(events))
        finally:
            self._nothing_before = 0.0

    async def claim(
        self, now: float, *, backend: str, until: float, prefer: Preference | None = None
    ) -> Lease | None:
        """See :meth:`EventStore.claim`."""
        if now < self._nothing_before:
            return None
        self._nothing_before, next_at = leases.NEVER, 0.0
        try:
            operation = partial(leases.claim, now=now, backend=backend, until=until, prefer=prefer)
            lease, next_at = await self._write(operation, durable=False)
        finally:
            # Whatever came into the queue meanwhile has set it back already.
            self._nothing_before = min(self._nothing_before, next_at)
        return lease

    async def extend(self, until: float) -> Mapping[str, int]:
        """See :meth:`EventStore.extend`."""
        return await self._write(partial(leases.extend, until=until), durable=False)

    async def recover(self, now: float) -> list[str]:
        """See :meth:`EventStore.recover`."""
        if self._instance_lock is None or not await self._read(
            queries.has_others, self._instance_lock.number
        ):
            return []
        recovered = await self._write(
            partial(leases.recover_others, now=now), durable=True, long=True
        )
        self._recovered(recovered)
        return recovered.event_ids

    async def release_owner(self) -> None:
        """See :meth:`EventStore.release_owner`."""
        await self._write(leases.release_owner, durable=True)

    async def next_due(self) -> float | None:
        """See :meth:`EventStore.next_due`."""
        return await self._read(queries.next_due)

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome, now: float) -> bool:
        """See :meth:`EventStore.complete`."""
        return await self._write(
            partial(leases.complete, lease=lease, state=state, outcome=outcome, now=now),
            durable=True,
        )

    async def release(self, lease: Lease, *, due_at: float, attempts: Sequence[Attempt]) -> bool:
        """See :meth:`EventStore.release`."""
        try:
            return await self._write(
                partial(leases.release, lease=lease, due_at=due_at, attempts=attempts),
                durable=True,
            )
        finally:
            self._nothing_before = 0.0

    async def cancel(
        self, event_id: str, now: float, outcome: Callable[[tuple[Attempt, ...]], Outcome]
    ) -> tuple[EventState, EventRecord] | None:
        """See :meth:`EventStore.cancel`."""
        return await self._write(
            partial(endings.cancel, event_id=event_id, now=now, outcome=outcome), durable=True
        )

    async def retry(self, event_id: str, now: float) -> EventRecord | None:
        """See :meth:`EventStore.retry`."""
        try:
            return await self._write(
                partial(endings.retry, event_id=event_id, now=now), durable=True
            )
        finally:
            self._nothing_before = 0.0

    async def expire(self, now: float, limit: int, *, held: str | None = None) -> list[EventRecord]:
        """See :meth:`EventStore.expire`."""
        if not await self._read(queries.has_late, now):
            return []
        return await self._write(
            partial(endings.expire, now=now, limit=limit, held=held), durable=True, long=True
        )

    async def give_back_time(self, begin: float, end: float) -> int:
        """See :meth:`EventStore.give_back_time`."""
        try:
            return await self._write(
                partial(endings.give_back_time, begin=begin, end=end), durable=True, long=True
            )
        finally:
            self._nothing_before = 0.0

    async def prune(self, before: float, limit: int) -> int:
        """See :meth:`EventStore.prune`."""
        if not await self._read(queries.has_old, before):
            return 0
        return await self._write(
            partial(endings.prune, before=before, limit=limit), durable=False, long=True
        )

    async def forget(self, event_ids: Sequence[str]) -> int:
        """See :meth:`EventStore.forget`."""
        return await self._write(partial(endings.forget, event_ids=event_ids), durable=True)

    async def page(self, wanted: EventFilter, *, below: int | None, limit: int) -> EventPage:
        """See :meth:`EventStore.page`."""
        return await self._read(queries.page, wanted=wanted, below=below, limit=limit)

    async def backup(self, target: Path) -> None:
        """See :meth:`EventStore.backup`."""
        await backup.copy(self._path, target, vfs=self._vfs)

    async def get(self, event_id: str) -> EventRecord | None:
        """See :meth:`EventStore.get`."""
        record = await self._read(queries.get, event_id)
        if record is not None and record.outcome is not None and self._writer is not None:
            # It may be seen before it is durable; and what was seen must never change.
            await self._writer.settled()
        return record

    async def outcomes(self, event_ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`EventStore.outcomes`."""
        return await self._read(queries.outcomes, event_ids)

    async def changed_elsewhere(self) -> bool:
        """See :meth:`EventStore.changed_elsewhere`."""
        if self._writer is None:
            return False
        version = self._writer.data_version()
        if version is None or version == self._data_version:
            return False
        known, self._data_version = self._data_version is not None, version
        self._nothing_before = 0.0
        return known

    async def counts(self) -> Counts:
        """See :meth:`EventStore.counts`."""
        return await self._read(read_counts)

    async def oldest_queued_at(self) -> float | None:
        """See :meth:`EventStore.oldest_queued_at`."""
        return await self._read(queries.oldest_queued_at)

    async def note_changes(self, changes: Sequence[Change]) -> None:
        """See :meth:`EventStore.note_changes`."""

        def note(transaction: Transaction) -> None:
            connection = transaction.connection
            connection.executemany(
                "INSERT INTO change (at, text) VALUES (?, ?)", [(c.at, c.text) for c in changes]
            )
            connection.execute(
                "DELETE FROM change WHERE id <= (SELECT max(id) FROM change) - ?", (KEPT_CHANGES,)
            )

        await self._write(note, durable=True)

    async def changes(self, begin: float, end: float) -> list[Change]:
        """See :meth:`EventStore.changes`."""
        return await self._read(queries.changes, begin, end)

    async def remember(self, key: str, value: str) -> None:
        """See :meth:`EventStore.remember`."""

        def note(transaction: Transaction) -> None:
            transaction.connection.execute(
                "INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (key, value)
            )

        await self._write(note, durable=True)

    async def recall(self, key: str) -> str | None:
        """See :meth:`EventStore.recall`."""
        return await self._read(queries.note, key)

    def _go_on(self, transaction: Transaction) -> None:
        """Have the time that all daemons at this store have."""
        connection = transaction.connection
        kept = self._clock.go_on(queries.note(connection, KEPT_UNDER))
        connection.execute(
            "INSERT OR REPLACE INTO note (key, value) VALUES (?, ?)", (KEPT_UNDER, kept)
        )

    async def order(self, name: str, order: Order) -> None:
        """See :meth:`EventStore.order`."""
        try:
            await self._write(
                partial(orders.order, name=name, order=order), durable=True, long=True
            )
        finally:  # Deadlines may have moved.
            self._nothing_before = 0.0

    async def orders(self) -> Mapping[str, Order]:
        """See :meth:`EventStore.orders`."""
        return await self._read(queries.orders)

    async def sit(self, about: str) -> None:
        """See :meth:`EventStore.sit`."""
        await self._write(partial(orders.sit, about=about), durable=False)

    async def members(self) -> Mapping[int, str]:
        """See :meth:`EventStore.members`."""
        found, lock = await self._read(queries.members), self._instance_lock
        if lock is None:
            raise StoreUnavailable(CLOSED)
        return {n: about for n, about in found.items() if n == lock.number or not lock.is_free(n)}

    async def _write(
        self, operation: Callable[[Transaction], T], *, durable: bool, long: bool = False
    ) -> T:
        if self._writer is None:
            raise StoreUnavailable(CLOSED)
        return await self._writer.write(operation, durable=durable, long=long)

    async def _read(
        self,
        question: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if self._reader is None:
            raise StoreUnavailable(CLOSED)
        return await self._reader.read(question, *args, **kwargs)

    def _recovered(self, recovered: leases.Recovered) -> None:
        self._nothing_before = 0.0
        if recovered.requests:
            self._observer.requests_cut_off(recovered.requests)
        if recovered.event_ids:
            self._observer.events_recovered(recovered.event_ids)

    def _opened_anew(self) -> None:
        if self._reader is not None:
            self._reader.stale = True
        self._data_version = None
        self._nothing_before = 0.0


def _is_long(events: Sequence[Event]) -> bool:
    return len(events) > LONG_BATCH or (
        sum(len(message.content) for event in events for message in event.messages) > LONG_TEXT
    )
