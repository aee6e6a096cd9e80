from __future__ import annotations

import pytest

from ai_ticket_daemon.events.state import FINAL_STATES, EventState, transition

Q, R = EventState.QUEUED, EventState.RUNNING
FAILED = EventState.FAILED
STEPS = {
    (Q, R),
    (Q, EventState.CANCELLED),
    (Q, EventState.EXPIRED),
    (R, Q),
    (R, EventState.SUCCEEDED),
    (R, FAILED),
    (R, EventState.CANCELLED),
    (R, EventState.EXPIRED),
    (FAILED, Q),
}


@pytest.mark.parametrize("target", EventState)
@pytest.mark.parametrize("current", EventState)
def test_an_event_goes_where_the_drawing_says_and_nowhere_else(
    current: EventState, target: EventState
) -> None:
    if (current, target) in STEPS:
        assert transition(current, target) is target
    else:
        with pytest.raises(ValueError, match=f"from {current} to {target}"):
            transition(current, target)


def test_final_states_are_those_an_event_does_not_leave_by_itself() -> None:
    leaving = {current for current, target in STEPS if (current, target) != (FAILED, Q)}
    assert set(EventState) - leaving == FINAL_STATES
