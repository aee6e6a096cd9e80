from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.backends.classify import BY_SEEN, classify
from ai_ticket_daemon.backends.failure import RetryRule
from ai_ticket_daemon.backends.observation import Aftermath, Observation, Seen
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.host.exhaustion import Resource

D, E = RetryRule, ErrorCode
ROWS = [
    ("refused", Observation(Seen.UNREACHABLE), E.API_CONNECTION_ERROR, D.OVER, True),
    ("frozen", Observation(Seen.NO_REPLY), E.API_TIMEOUT, D.OVER, True),
    ("no byte in time", Observation(Seen.FIRST_TOKEN_TIMEOUT), E.API_TIMEOUT, D.OVER, True),
    ("lost", Observation(Seen.LOST), E.API_CONNECTION_ERROR, D.SAME, False),
    (
        "no byte, server goes on",
        Observation(Seen.NO_BYTE, aftermath=Aftermath.GOES_ON),
        E.API_CLIENT_ERROR,
        D.FINAL,
        False,
    ),
    (
        "no byte, server gone",
        Observation(Seen.NO_BYTE, aftermath=Aftermath.GONE),
        E.API_CONNECTION_ERROR,
        D.OVER_ONCE,
        True,
    ),
    (
        "no byte, server restarted",
        Observation(Seen.NO_BYTE, aftermath=Aftermath.RESTARTED),
        E.API_CONNECTION_ERROR,
        D.OVER_ONCE,
        True,
    ),
    ("null", Observation(Seen.NULL_BODY), E.API_CLIENT_ERROR, D.FINAL, False),
    ("no model", Observation(Seen.NO_MODEL), E.API_SERVER_ERROR, D.OVER, True),
    ("silent stream", Observation(Seen.SILENT_STREAM), E.API_CLIENT_ERROR, D.FINAL, False),
    ("stream cut", Observation(Seen.CUT), E.API_CONNECTION_ERROR, D.OVER, True),
    (
        "stream cut after a delta",
        Observation(Seen.CUT, passed_on=True),
        E.API_CONNECTION_ERROR,
        D.FINAL,
        True,
    ),
    ("busy", Observation(Seen.STATUS, status=503), E.API_RATE_LIMITED, D.BUSY, False),
    ("limited", Observation(Seen.STATUS, status=429), E.API_RATE_LIMITED, D.BUSY, False),
    (
        "bad input",
        Observation(Seen.STATUS, status=500, error_type="bad_input"),
        E.API_CLIENT_ERROR,
        D.FINAL,
        False,
    ),
    ("server error", Observation(Seen.STATUS, status=500), E.API_SERVER_ERROR, D.OVER, True),
    ("wrong key", Observation(Seen.STATUS, status=401), E.API_AUTHENTICATION_ERROR, D.OVER, True),
    ("not found", Observation(Seen.STATUS, status=404), E.API_CLIENT_ERROR, D.OVER, True),
    ("not known", Observation(Seen.STATUS, status=501), E.API_CLIENT_ERROR, D.OVER, True),
    ("bad body", Observation(Seen.STATUS, status=400), E.API_CLIENT_ERROR, D.FINAL, False),
    ("stalled", Observation(Seen.IDLE_TIMEOUT), E.API_STALLED, D.OVER, True),
    ("unpaid", Observation(Seen.STATUS, status=402), E.API_CLIENT_ERROR, D.OVER, True),
    ("too slow", Observation(Seen.STATUS, status=408), E.API_TIMEOUT, D.OVER, True),
    ("conflict", Observation(Seen.STATUS, status=409), E.API_CLIENT_ERROR, D.OVER, True),
    ("taken away", Observation(Seen.STATUS, status=410), E.API_CLIENT_ERROR, D.OVER, True),
    ("too big", Observation(Seen.STATUS, status=413), E.API_CLIENT_ERROR, D.FINAL, False),
    ("misdirected", Observation(Seen.STATUS, status=421), E.API_CLIENT_ERROR, D.OVER, True),
    ("locked", Observation(Seen.STATUS, status=423), E.API_SERVER_ERROR, D.OVER, True),
    ("depends", Observation(Seen.STATUS, status=424), E.API_SERVER_ERROR, D.OVER, True),
    ("too early", Observation(Seen.STATUS, status=425), E.API_SERVER_ERROR, D.OVER, True),
    ("left", Observation(Seen.STATUS, status=499), E.API_SERVER_ERROR, D.OVER, True),
    ("overloaded", Observation(Seen.STATUS, status=529), E.API_RATE_LIMITED, D.BUSY, False),
    ("no content", Observation(Seen.STATUS, status=204), E.API_SERVER_ERROR, D.OVER, True),
    (
        "no credit",
        Observation(Seen.STATUS, status=429, error_type="insufficient_quota"),
        E.API_CLIENT_ERROR,
        D.OVER,
        True,
    ),
    (
        "prompt filtered",
        Observation(Seen.STATUS, status=400, error_type="content_filter"),
        E.API_CLIENT_ERROR,
        D.FINAL,
        False,
    ),
    ("filtered", Observation(Seen.FILTERED), E.API_CLIENT_ERROR, D.FINAL, False),
    ("half an answer", Observation(Seen.HALF_ANSWER), E.API_SERVER_ERROR, D.OVER, True),
    ("tool", Observation(Seen.TOOL_CALL), E.API_RESPONSE_STRUCTURE_ERROR, D.OVER, True),
    ("gzip", Observation(Seen.ENCODED), E.API_RESPONSE_FORMAT_ERROR, D.OVER, True),
    ("bad byte", Observation(Seen.NOT_UTF8), E.API_RESPONSE_FORMAT_ERROR, D.OVER, True),
    ("garbage", Observation(Seen.NOT_JSON), E.API_RESPONSE_FORMAT_ERROR, D.OVER, True),
    ("wrong shape", Observation(Seen.WRONG_SHAPE), E.API_RESPONSE_STRUCTURE_ERROR, D.OVER, True),
]


@pytest.mark.parametrize(
    ("observation", "code", "retry", "fault"),
    [pytest.param(*row[1:], id=row[0]) for row in ROWS],
)
def test_what_was_seen_decides_what_is_done(
    observation: Observation, code: ErrorCode, retry: RetryRule, fault: bool
) -> None:
    error = classify("primary", observation)
    assert (error.code, error.retry, error.backend_fault) == (code, retry, fault)
    assert error.message.startswith("backend primary ")


def test_everything_that_can_be_seen_has_a_verdict() -> None:
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
    assert error.retry is RetryRule.HOST
    assert error.health_event is None
    assert not error.backend_fault
    # A client that has a part of the text must not get it again.
    assert classify("primary", replace(seen, passed_on=True)).retry is RetryRule.FINAL


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
