"""Whether queued events are started, and what says why not."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.pipeline.queue import PAUSED, STOPPING, Admission
from ai_ticket_daemon.pipeline.waiters import Waiter, Waiters


@pytest.mark.parametrize(
    ("paused", "draining", "waited_for", "may_start", "why_held"),
    [
        (None, None, False, True, None),
        (PAUSED, None, False, False, PAUSED),
        (PAUSED, None, True, False, PAUSED),
        (None, STOPPING, False, False, STOPPING),
        (None, STOPPING, True, True, STOPPING),
        (PAUSED, STOPPING, True, False, PAUSED),
    ],
)
def test_a_pause_holds_all_events_and_a_drain_those_nobody_waits_for(
    paused: str | None,
    draining: str | None,
    waited_for: bool,
    may_start: bool,
    why_held: str | None,
) -> None:
    waiters = Waiters()
    if waited_for:
        waiters.add("id", Waiter())
    admission = Admission(waiters)
    admission.paused, admission.draining = paused, draining
    assert admission.may_start is may_start
    assert admission.why_held == why_held
