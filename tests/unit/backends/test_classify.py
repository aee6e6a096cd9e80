from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.failure import HealthEvent, RetryRule
from ai_ticket_daemon.backends.failure_table import BY_SEEN
from ai_ticket_daemon.backends.observation import Aftermath, Observation, Seen, SlotEnd
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.host.exhaustion import Resource

D, E, H = RetryRule, ErrorCode, HealthEvent
ROWS = [
    ("refused", Observation(Seen.UNREACHABLE), E.API_CONNECTION_ERROR, D.OVER, H.LOST),
    ("frozen", Observation(Seen.NO_REPLY), E.API_TIMEOUT, D.OVER, H.LOST),
    ("no byte in time", Observation(Seen.FIRST_TOKEN_TIMEOUT), E.API_TIMEOUT, D.OVER, H.FAILED),
    ("lost", Observation(Seen.LOST), E.API_CONNECTION_ERROR, D.SAME, None),
    (
        "no byte, server goes on",
        Observation(Seen.NO_BYTE, aftermath=Aftermath.GOES_ON),
        E.API_CLIENT_ERROR,
        D.FINAL,
        None,
    ),
    (
        "no byte, server gone",
        Observation(Seen.NO_BYTE, aftermath=Aftermath.GONE),
        E.API_CONNECTION_ERROR,
        D.OVER_ONCE,
        H.LOST,
    ),
    (
        "no byte, server restarted",
        Observation(Seen.NO_BYTE, aftermath=Aftermath.RESTARTED),
        E.API_CONNECTION_ERROR,
        D.OVER_ONCE,
        H.LOST,
    ),
    ("null", Observation(Seen.NULL_BODY), E.API_CLIENT_ERROR, D.FINAL, None),
    ("no model", Observation(Seen.NO_MODEL), E.API_SERVER_ERROR, D.OVER, H.NO_MODEL),
    ("silent stream", Observation(Seen.SILENT_STREAM), E.API_CLIENT_ERROR, D.FINAL, None),
    ("stream cut", Observation(Seen.CUT), E.API_CONNECTION_ERROR, D.OVER, H.LOST),
    (
        "stream cut after a delta",
        Observation(Seen.CUT, passed_on=True),
        E.API_CONNECTION_ERROR,
        D.FINAL,
        H.LOST,
    ),
    ("busy", Observation(Seen.STATUS, status=503), E.API_RATE_LIMITED, D.BUSY, None),
    ("limited", Observation(Seen.STATUS, status=429), E.API_RATE_LIMITED, D.BUSY, None),
    (
        "bad input",
        Observation(Seen.STATUS, status=500, error_type="bad_input"),
        E.API_CLIENT_ERROR,
        D.FINAL,
        None,
    ),
    ("server error", Observation(Seen.STATUS, status=500), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    (
        "wrong key",
        Observation(Seen.STATUS, status=401),
        E.API_AUTHENTICATION_ERROR,
        D.OVER,
        H.CREDENTIAL,
    ),
    ("not found", Observation(Seen.STATUS, status=404), E.API_CLIENT_ERROR, D.OVER, H.FAILED),
    ("not known", Observation(Seen.STATUS, status=501), E.API_CLIENT_ERROR, D.OVER, H.FAILED),
    ("bad body", Observation(Seen.STATUS, status=400), E.API_CLIENT_ERROR, D.FINAL, None),
    ("stalled", Observation(Seen.IDLE_TIMEOUT), E.API_STALLED, D.OVER, H.STALLED),
    ("unpaid", Observation(Seen.STATUS, status=402), E.API_CLIENT_ERROR, D.OVER, H.FAILED),
    ("too slow", Observation(Seen.STATUS, status=408), E.API_TIMEOUT, D.OVER, H.FAILED),
    ("conflict", Observation(Seen.STATUS, status=409), E.API_CLIENT_ERROR, D.OVER, H.FAILED),
    ("taken away", Observation(Seen.STATUS, status=410), E.API_CLIENT_ERROR, D.OVER, H.FAILED),
    ("too big", Observation(Seen.STATUS, status=413), E.API_CLIENT_ERROR, D.FINAL, None),
    ("misdirected", Observation(Seen.STATUS, status=421), E.API_CLIENT_ERROR, D.OVER, H.FAILED),
    ("locked", Observation(Seen.STATUS, status=423), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    ("depends", Observation(Seen.STATUS, status=424), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    ("too early", Observation(Seen.STATUS, status=425), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    ("left", Observation(Seen.STATUS, status=499), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    ("overloaded", Observation(Seen.STATUS, status=529), E.API_RATE_LIMITED, D.BUSY, None),
    ("no content", Observation(Seen.STATUS, status=204), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    (
        "no credit",
        Observation(Seen.STATUS, status=429, error_type="insufficient_quota"),
        E.API_CLIENT_ERROR,
        D.OVER,
        H.FAILED,
    ),
    (
        "prompt filtered",
        Observation(Seen.STATUS, status=400, error_type="content_filter"),
        E.API_CLIENT_ERROR,
        D.FINAL,
        None,
    ),
    ("filtered", Observation(Seen.FILTERED), E.API_CLIENT_ERROR, D.FINAL, None),
    ("half an answer", Observation(Seen.HALF_ANSWER), E.API_SERVER_ERROR, D.OVER, H.FAILED),
    ("tool", Observation(Seen.TOOL_CALL), E.API_RESPONSE_STRUCTURE_ERROR, D.OVER, H.FAILED),
    ("gzip", Observation(Seen.ENCODED), E.API_RESPONSE_FORMAT_ERROR, D.OVER, H.FAILED),
    ("bad byte", Observation(Seen.NOT_UTF8), E.API_RESPONSE_FORMAT_ERROR, D.OVER, H.FAILED),
    ("garbage", Observation(Seen.NOT_JSON), E.API_RESPONSE_FORMAT_ERROR, D.OVER, H.FAILED),
    (
        "wrong shape",
        Observation(Seen.WRONG_SHAPE),
        E.API_RESPONSE_STRUCTURE_ERROR,
        D.OVER,
        H.FAILED,
    ),
]


@pytest.mark.parametrize(
    ("observation", "code", "retry", "health_event"),
    [pytest.param(*row[1:], id=row[0]) for row in ROWS],
)
def test_what_was_seen_decides_what_is_done(
    observation: Observation, code: ErrorCode, retry: RetryRule, health_event: HealthEvent | None
) -> None:
    error = classify("primary", observation)
    failure = error.failure
    assert (failure.code, failure.retry, failure.health_event) == (code, retry, health_event)
    assert error.code is code
    assert error.message.startswith("backend primary ")


def test_everything_that_can_be_seen_has_a_row_in_the_table() -> None:
    assert set(Seen) - set(BY_SEEN) == {
        Seen.NO_BYTE,
        Seen.BROKEN,
        Seen.CUT,
        Seen.STATUS,
        Seen.HOST_EXHAUSTED,
    }


def test_a_host_that_lacks_something_says_nothing_of_the_server() -> None:
    seen = Observation(Seen.HOST_EXHAUSTED, lacking=Resource.DESCRIPTORS)
    error = classify("primary", seen)
    assert error.message == "backend primary was not asked: this host is out of file descriptors"
    assert error.failure.retry is RetryRule.HOST
    assert error.failure.health_event is None
    # A client that has a part of the text must not get it again.
    assert classify("primary", replace(seen, passed_on=True)).failure.retry is RetryRule.FINAL


def test_a_server_that_goes_on_generating_counts_as_stalled_whatever_the_failure_was() -> None:
    for seen in Seen:
        error = classify("primary", Observation(seen, slot=SlotEnd.TAKEN))
        assert error.failure.health_event is HealthEvent.STALLED
        assert error.details is not None
        assert error.details["slot_freed"] is False


def test_nothing_is_tried_again_once_a_part_of_the_text_was_passed_on() -> None:
    for seen in Seen:
        before = classify("primary", Observation(seen)).failure
        error = classify("primary", Observation(seen, passed_on=True))
        assert error.failure == replace(before, retry=RetryRule.FINAL)
        told = error.message.endswith("; a part of the text was already delivered")
        assert told is (before.retry is not RetryRule.FINAL)


def test_what_the_server_says_stands_behind_what_it_means() -> None:
    error = classify("p", Observation(Seen.STATUS, status=500, words="CUDA out of memory"))
    assert error.message == 'backend p failed by itself; it says: "CUDA out of memory"'


def test_what_is_too_large_for_a_context_is_told_in_numbers() -> None:
    seen = Observation(Seen.OVERFLOW, prompt_tokens=5000, context_tokens=4096, max_tokens=256)
    error = classify("primary", seen)
    assert error.code is ErrorCode.CONTEXT_OVERFLOW
    assert (
        "(the prompt has 5000 tokens, max_tokens is 256, the context holds 4096)" in error.message
    )
    assert "(" not in classify("primary", Observation(Seen.OVERFLOW)).message
