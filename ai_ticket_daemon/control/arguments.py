"""What the operations take: checked as a whole, unknown names refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ai_ticket_daemon.backends.wrappers.fault_injection import LONGEST_SECONDS
from ai_ticket_daemon.config.log import MOST_CAPTURES, LogLevel
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import EventFilter

PAGE_LIMIT = 500
"""How many events one request may list or change; whoever wants more asks again."""

MOST_SEQ = 2**63 - 1
"""The highest number the store can give an event."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For whom an order is: for all daemons that share the store, or for this one alone."""

    here: bool = False


class ByName(Scope, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server."""

    name: Text


class OneServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server, in the eyes of this daemon alone."""

    name: Text


class ByEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event."""

    event_id: Text


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A log level."""

    level: LogLevel


class Captures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many payloads of failing events to keep."""

    payloads: Annotated[int, msgspec.Meta(ge=0, le=MOST_CAPTURES)]


class Isolated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the primaries are to be isolated."""

    seconds: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_SECONDS)]


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which events, and where their list goes on.

    ``state`` is one or several, parted by commas; ages are in seconds since the submission.
    """

    state: str = ""
    error: Text | None = None
    token: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    older_than: Seconds | None = None
    newer_than: Seconds | None = None
    below: Annotated[int, msgspec.Meta(ge=0, le=MOST_SEQ)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_LIMIT)] = 50

    def filter(self, now: float) -> EventFilter:
        """Return the same in the words of the store.

        Raises:
            ValueError: there is no such state.
        """
        return EventFilter(
            states=frozenset(EventState(name) for name in self.state.split(",") if name),
            error=self.error,
            owner=self.token,
            submitted_after=None if self.newer_than is None else now - self.newer_than,
            submitted_before=None if self.older_than is None else now - self.older_than,
        )


class Bulk(Listing, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with one page of events; ``apply`` False only tells what would be done."""

    action: Literal["retry", "cancel", "purge"]
    apply: bool = False
