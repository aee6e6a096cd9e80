"""The event store as the pipeline sees it; ``sqlite.py`` and ``memory.py`` implement it.

Every method either did all of its work or raised
:class:`~ai_ticket_daemon.errors.StoreUnavailable` and promised nothing: it did nothing, unless it
was the last step, the fsync, that failed. Where a method says *durable*, what it did survives a
power cut from the moment it returns.

Times are seconds since the Unix epoch, and always come from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec import Struct

from ai_ticket_daemon.events.state import FINAL_STATES, EventState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import trio

    from ai_ticket_daemon.errors import RequestRefused
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Attempt, Outcome


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to end one event, held by one worker until ``until`` or longer, if extended.

    ``token`` tells this holding of the event from earlier and later ones: a worker whose lease was
    lost has an old token, and is refused (a fencing token: Kleppmann, "How to do distributed
    locking", 2016). ``attempts`` are those made under earlier leases.
    """

    event: Event
    token: int
    attempts: tuple[Attempt, ...]
    beginning: bytes | None = None
    """A digest of what its prompt begins with; None if it is short, or there was no preference."""
    ahead_of: int = 0
    """How many events it was taken ahead of."""
    overtaken: int = 0
    """How many events were taken ahead of it."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Which events may be taken ahead of others of their priority.

    ``beginnings`` are the digests of what a server has read last. No event is taken ahead of more
    than ``most`` others, nor of one that ``most`` were taken ahead of, that was passed over first
    ``seconds`` ago, or that has no more time than that.
    """

    beginnings: tuple[bytes, ...]
    most: int
    seconds: float

    @property
    def looks(self) -> int:
        """How many of the first events are looked at."""
        return self.most + 1 if self.beginnings else 1


@dataclass(frozen=True, slots=True)
class EventRecord:
    """All the store knows of one event.

    ``position`` counts from 1 and is None unless queued; ``backend`` is None unless running.
    """

    event: Event
    state: EventState
    attempts: tuple[Attempt, ...]
    outcome: Outcome | None = None
    position: int | None = None
    backend: str | None = None


class Receipt(Struct, frozen=True):
    """What became of one submitted event.

    ``event_id`` is that of the event which holds the place in the queue: an older one if
    ``replayed``, because the same token had submitted the same payload under the same idempotency
    key. ``refusal`` is set if the key had come with another payload.
    """

    event_id: str
    position: int | None = None
    replayed: bool = False
    refusal: RequestRefused | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events were ever accepted, and how many are in each state (every state is a key).

    Ended events are counted here long after they were pruned.
    """

    accepted: int
    states: Mapping[EventState, int]

    @property
    def difference(self) -> int:
        """Accepted events that are in no state; anything but 0 means that events were lost."""
        return self.accepted - sum(self.states.values())

    @property
    def ended(self) -> int:
        """How many events have ended."""
        return sum(self.states[state] for state in FINAL_STATES)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are meant: those that meet all that is set here.

    ``states`` empty means any. Times are those of the submission.
    """

    states: frozenset[EventState] = frozenset()
    error: str | None = None
    owner: str | None = None
    submitted_after: float | None = None
    submitted_before: float | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class EventSummary:
    """One event without its content. Times are seconds since the Unix epoch."""

    place: int
    """Its number in the order of acceptance."""
    event_id: str
    state: EventState
    priority: int
    owner: str
    """The name of the token it was submitted with."""
    submitted_at: float
    deadline_at: float
    ahead: int | None
    """How many events waited before it when it was accepted; None if not known any more."""
    due_at: float
    """When it may be claimed; 0: at once."""
    backend: str | None
    """For which backend it was claimed the last time; None before the first."""
    claimed_at: float | None
    """When it was claimed the last time; None before the first."""
    ended_at: float | None
    error: str | None
    """The code of the error it ended with."""
    overtaken: int = 0
    """How many events were taken ahead of it."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, the newest first. ``below``: where the next page starts; None: that is all."""

    events: tuple[EventSummary, ...]
    below: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to a server or to a daemon ``at`` a time, in plain words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator ordered ``at`` a time for all daemons that share a store.

    ``value`` "" takes it back. ``holds``: while it stands, nothing is started that nobody waits
    for.
    """

    value: str
    at: float
    holds: bool = False


Beginnings: TypeAlias = "Sequence[bytes | None] | None"
"""For each of several events, a digest of what its prompt begins with, None where that is short."""

KEPT_CHANGES = 1000
"""How many changes are kept, the last ones."""


@dataclass(frozen=True, slots=True)
class CutOff:
    """A request whose daemon died before it was answered.

    ``trace_context`` is that of its events, ``began_at`` about when it came. ``event_id`` is None
    if it brought several.
    """

    trace_context: Mapping[str, str]
    began_at: float
    event_id: str | None


PAGE_LOOKS = 5000
"""How many events are looked at for one page, so that a rare kind holds nobody up; a page may be
empty and not the last."""


class StoreObserver(Protocol):
    """Is told when the store fails and when it works again; logs it and counts it."""

    def store_failed(self, reason: str) -> None:
        """Nothing can be written or read now, for this ``reason``."""

    def store_recovered(self, after_seconds: float) -> None:
        """The store works again, ``after_seconds`` after it failed."""

    def events_recovered(self, event_ids: Sequence[str]) -> None:
        """Events that ran when their daemon ended went back to the queue."""

    def requests_cut_off(self, requests: Sequence[CutOff]) -> None:
        """Clients waited at a daemon that died; some of them, if there were very many."""


MAX_EXPIRED_BYTES = 4 * 1024 * 1024
"""Texts of this size together are enough to expire at a time."""


class EventStore(Protocol):
    """Keeps events and hands them out, first by priority, then first in, first out."""

    @property
    def fault(self) -> str | None:
        """Why nothing can be written now; None while all is well."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the store open; started once it can be used; runs until cancelled.

        Raises:
            StoreUnavailable: before it has started: it cannot be opened.
        """

    async def submit(
        self, events: Sequence[Event], *, owned: bool, beginnings: Beginnings = None
    ) -> list[Receipt]:
        """Accept all of ``events`` as queued, or none of them; durable.

        Args:
            events: in the order they are to wait in.
            owned: this daemon is their owner instance: only it may run them as long as it lives,
                because a client waits here.
            beginnings: a digest of what the prompt of each begins with, if they are to be known
                by it.

        Raises:
            RequestRefused: the queue is full (``queue_full``).
        """

    async def claim(
        self, now: float, *, backend: str, until: float, prefer: Preference | None = None
    ) -> Lease | None:
        """Move the first event that is due at ``now`` to running on ``backend``; None if none is.

        Events whose deadline has passed are never handed out. What ``prefer`` allows to be taken
        ahead of the first one is taken instead; None: nothing is.
        """

    async def extend(self, until: float) -> Mapping[str, int]:
        """Hold all leases of this daemon until then; return the token of each event held."""

    async def recover(self, now: float) -> list[str]:
        """Queue running events whose holder is gone, the attempt counted; return their ids.

        Gone is another daemon that does not live any more, or did not extend its lease in time.
        What this daemon's own predecessor left is recovered when the store starts.
        """

    async def release_owner(self) -> None:
        """No client waits here any more: any daemon may run what is queued for one."""

    async def next_due(self) -> float | None:
        """Return when the first queued event may be claimed; None if nothing is queued."""

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome, now: float) -> bool:
        """Write how a running event ended; durable.

        Returns False, and writes nothing, if the lease was lost. True again if the same lease
        writes the same outcome again, because it could not know that it was written.
        """

    async def release(self, lease: Lease, *, due_at: float, attempts: Sequence[Attempt]) -> bool:
        """Put a running event back in its old place, not to be claimed before ``due_at``; durable.

        ``attempts`` replaces what the record holds. Returns False if the lease was lost.
        """

    async def cancel(
        self, event_id: str, now: float, outcome: Callable[[tuple[Attempt, ...]], Outcome]
    ) -> tuple[EventState, EventRecord] | None:
        """Cancel a queued or running event; durable.

        Args:
            event_id: which event.
            now: seconds since the epoch.
            outcome: makes the outcome, given the attempts so far.

        Returns:
            The state it was in and what is known of it now, but for its text, since a crowd may be
            cancelled together; None if unknown. An event that had already ended stays as it is.
        """

    async def retry(self, event_id: str, now: float) -> EventRecord | None:
        """Queue a failed event again, with the time it once had and a fresh count of attempts.

        Durable. Its earlier attempts stay on record. Returns what is known of it now, unchanged
        if it was not failed; None if unknown.
        """

    async def expire(self, now: float, limit: int, *, held: str | None = None) -> list[EventRecord]:
        """End up to ``limit`` queued events whose deadline is before ``now``; durable.

        Fewer at a time if their texts are long: it is over when none is returned.

        ``held`` says, in words, what keeps events from being started; while an order of the store
        does (see :meth:`order`), only those end that a client waits for.
        """

    async def give_back_time(self, begin: float, end: float) -> int:
        """Let the time from ``begin`` to ``end`` not count against what is queued; durable.

        The deadline of each queued event moves by the part of that time it has existed. Returns
        how many deadlines moved.
        """

    async def prune(self, before: float, limit: int) -> int:
        """Forget up to ``limit`` events that ended ``before`` then; return how many."""

    async def forget(self, event_ids: Sequence[str]) -> int:
        """Forget those of ``event_ids`` that have ended; durable. Return how many they were."""

    async def page(self, wanted: EventFilter, *, below: int | None, limit: int) -> EventPage:
        """Return up to ``limit`` events accepted before place ``below``, or the newest for None.

        Costs the same whatever the number of events: see :data:`PAGE_LOOKS`.
        """

    async def backup(self, target: Path) -> None:
        """Write all that is durable now to the new file ``target``, while everything goes on.

        Raises:
            StoreUnavailable: it cannot be written, or this store has no file.
        """

    async def get(self, event_id: str) -> EventRecord | None:
        """Return the record of one event; None if unknown."""

    async def outcomes(self, event_ids: Collection[str]) -> Mapping[str, Outcome]:
        """Return how those of ``event_ids`` that have ended did."""

    async def changed_elsewhere(self) -> bool:
        """Tell whether another daemon wrote to the store since this was last asked."""

    async def counts(self) -> Counts:
        """Return how many events there are."""

    async def oldest_queued_at(self) -> float | None:
        """Return when the longest-waiting queued event was submitted; None if nothing waits."""

    async def note_changes(self, changes: Sequence[Change]) -> None:
        """Keep ``changes``, and of earlier ones the last :data:`KEPT_CHANGES`; durable."""

    async def changes(self, begin: float, end: float) -> list[Change]:
        """Return what was noted of that time by any daemon, in the order it was noted in."""

    async def remember(self, key: str, value: str) -> None:
        """Keep a small note under ``key``; durable."""

    async def recall(self, key: str) -> str | None:
        """Return the note kept under ``key``; None if there is none."""

    async def order(self, name: str, order: Order) -> None:
        """Keep a standing order, in place of the last one of this name; durable.

        When the last order that holds events is taken back, the deadlines of the queued events
        that no client waits for move by the time they were held.
        """

    async def orders(self) -> Mapping[str, Order]:
        """Return the standing orders by name, those taken back among them."""

    async def sit(self, about: str) -> None:
        """Say something of this daemon, for :meth:`members` of every daemon."""

    async def members(self) -> Mapping[int, str]:
        """Return what each living daemon of the store said of itself, by its instance number."""
