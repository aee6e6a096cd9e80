"""Which of the first events in the queue is next; one rule for every store, as a plain function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.store.port import Preference


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued event that may be next.

    ``beginning`` is a digest of what its prompt begins with, None if it is to wait its turn.
    ``overtaken`` events were taken ahead of it, the first of them at ``overtaken_at``.
    """

    deadline_at: float
    beginning: bytes | None
    overtaken: int
    overtaken_at: float | None


def choose_next(head: Sequence[Candidate], prefer: Preference, now: float) -> int:
    """Return the index of the event that is next among the first ones of one priority.

    It is 0, unless one that a server has read the beginning of may be taken ahead of all before it.
    """
    for index, candidate in enumerate(head[: prefer.looks]):
        if candidate.beginning in prefer.beginnings:
            return index
        if not _may_be_passed_over(candidate, prefer, now):
            return 0
    return 0


def _may_be_passed_over(candidate: Candidate, prefer: Preference, now: float) -> bool:
    since = candidate.overtaken_at
    return (
        candidate.overtaken < prefer.most
        and (since is None or now - since < prefer.seconds)
        and candidate.deadline_at - now > prefer.seconds
    )
