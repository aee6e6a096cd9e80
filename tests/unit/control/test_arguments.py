from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ai_ticket_daemon.backends.wrappers.fault_injection import LONGEST_SECONDS
from ai_ticket_daemon.control.arguments import PAGE_LIMIT, Bulk, Captures, Isolated, Level, Listing
from ai_ticket_daemon.events.state import EventState


def test_ages_become_times() -> None:
    wanted = Listing(
        state="queued,failed", older_than=60.0, newer_than=3600.0, token="a", error="b"
    )
    found = wanted.filter(10_000.0)
    assert found.states == {EventState.QUEUED, EventState.FAILED}
    assert (found.submitted_before, found.submitted_after) == (9_940.0, 6_400.0)
    assert (found.owner, found.error) == ("a", "b")


def test_nothing_asked_for_filters_nothing() -> None:
    found = Listing().filter(1.0)
    assert (found.states, found.owner, found.submitted_after) == (frozenset(), None, None)


def test_a_state_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="odd"):
        Listing(state="queued,odd").filter(1.0)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Listing, {"limit": 0}),
        (Listing, {"limit": PAGE_LIMIT + 1}),
        (Listing, {"older_than": -1}),
        (Listing, {"below": 10**30}),
        (Listing, {"below": 2**63}),
        (Listing, {"below": -1}),
        (Listing, {"older_than": 1e300}),
        (Listing, {"token": "x" * 201}),
        (Listing, {"odd": 1}),
        (Bulk, {}),
        (Bulk, {"action": "explode"}),
        (Level, {"level": "loud"}),
        (Captures, {"payloads": -1}),
        (Captures, {"payloads": 10_001}),
        (Isolated, {}),
        (Isolated, {"seconds": 0}),
        (Isolated, {"seconds": LONGEST_SECONDS + 1}),
    ],
)
def test_what_makes_no_sense_is_refused(kind: type[Any], given: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, kind)
