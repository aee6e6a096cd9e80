from __future__ import annotations

from typing import Any

from ai_ticket_daemon.ctl.load.ledger import account
from ai_ticket_daemon.ctl.load.traffic import Sent


def sent(number: int, **more: Any) -> Sent:
    told = {"event_id": f"e{number}", "backend": "primary", "key": f"k{number}"} | more
    return Sent(0.0, 0.0, 1.0, **told)


def event(*attempts: tuple[str, str | None], state: str = "succeeded") -> dict[str, Any]:
    return {
        "state": state,
        "attempts": [{"backend": name, "error": error} for name, error in attempts],
    }


DONE = event(("primary", None))


def test_one_completion_each_is_clean() -> None:
    ledger = account([sent(1), sent(2)], [sent(1), sent(2)], {"e1": DONE, "e2": DONE})
    assert ledger.clean
    assert (ledger.events, ledger.moved) == (2, 0)


def test_an_event_that_was_cut_and_done_elsewhere_has_moved() -> None:
    moved = event(("primary", "api_connection_error"), ("standby", None))
    one = sent(1, backend="standby")
    ledger = account([one], [one], {"e1": moved})
    assert (ledger.clean, ledger.moved) == (True, 1)


def test_an_answer_that_got_lost_is_found_under_its_key() -> None:
    unanswered = sent(1, event_id=None, backend=None, error="unanswered")
    ledger = account([unanswered], [sent(1)], {"e1": DONE})
    assert (ledger.lost, ledger.failed) == ((), {"unanswered": 1})


def test_an_event_nobody_knows_is_lost() -> None:
    for again, known in (
        ([], {}),
        ([sent(1, event_id=None, error="ConnectError")], {}),
        ([sent(1)], {}),
        ([sent(1)], {"e1": event(state="running")}),
    ):
        assert account([sent(1)], again, known).lost == ("e1",)


def test_an_event_that_was_never_sent_is_not_lost() -> None:
    held_back = Sent(0.0, 0.0, 0.0, error="not_sent")
    ledger = account([sent(1), held_back, held_back], [sent(1)], {"e1": DONE})
    assert ledger.clean
    assert (ledger.events, ledger.not_sent) == (1, 2)


def test_an_event_that_failed_is_told_with_its_code() -> None:
    failed = sent(1, error="api_timeout", backend=None)
    ledger = account([failed], [failed], {"e1": event(("primary", "api_timeout"), state="failed")})
    assert (ledger.failed, ledger.lost, ledger.doubled) == ({"api_timeout": 1}, (), ())
    assert not ledger.clean


def test_what_was_completed_twice_is_doubled() -> None:
    twice = event(("primary", None), ("standby", None))
    assert account([sent(1)], [sent(1)], {"e1": twice}).doubled == ("e1",)


def test_one_key_that_stands_for_two_events_is_doubled() -> None:
    other = sent(1, event_id="e9")
    assert account([sent(1)], [other], {"e1": DONE, "e9": DONE}).doubled == ("e9",)


def test_two_keys_that_stand_for_one_event_are_doubled() -> None:
    second = sent(2, event_id="e1")
    assert account([sent(1), second], [sent(1), second], {"e1": DONE}).doubled == ("e1", "e1")
