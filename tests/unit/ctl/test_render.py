from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from ai_ticket_daemon.ctl import render

REPORT: dict[str, Any] = {
    "status": "unhealthy",
    "reasons": ["no backend is usable"],
    "version": "0.1.0",
    "pid": 1,
    "uptime_seconds": 3700.0,
    "addresses": ["127.0.0.1:5000"],
    "draining": True,
    "paused": True,
    "refused_clients": [
        {"client": "192.0.2.7", "number": 3, "error": "unauthorised", "last_at": 0.0}
    ],
    "serving": {"role": "primary", "pinned": "a[b]", "reason": "x", "detail": "[/] closes nothing"},
    "severed": {"servers": ["a[b]"], "left_seconds": 12.0},
    "backends": [
        {
            "name": "a[b]",
            "role": "primary",
            "state": "down",
            "reason": "[red]refused[/red]",
            "usable": False,
            "active": True,
            "pinned": True,
            "in_flight": 0,
            "max_in_flight": 1,
            "version": "1.115.1",
            "features": ["true_usage", "jinja"],
            "resting_seconds": 0.0,
        }
    ],
    "queue": {"queued": 3},
    "oldest_queued_seconds": 75.0,
    "events_per_second": 0.1234,
    "in_flight": 0,
    "max_concurrency": 8,
    "capacity": 0,
    "wasted": [
        {"backend": "a", "cause": "client_left", "seconds": 75.0, "tokens": 40, "unknown": 2}
    ],
    "warnings": ["http.bind is not in force"],
    "reload": {"refused": ["log.level: [nonsense]"]},
    "store": {"url": "sqlite:////x", "fault": "[Errno 28] No space left"},
    "log_level": "debug",
    "capture_payloads": 5,
}


def shown(what: Any, width: int = 120) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(what)
    return stream.getvalue()


def test_the_status_tells_everything_that_is_wrong() -> None:
    text = shown(render.status(REPORT))
    for told in (
        "unhealthy draining paused",
        "no backend is usable",
        "up 1 h 1 min",
        "a[b] isolated for 12.0 s more",
        "3 queued, the oldest for 1 min 15 s",
        "[Errno 28] No space left",
        "refused: log.level: [nonsense]",
        "debug, 5 payloads captured",
        "1 min 15 s, 40 tokens and those of 2 attempts nobody counted on a: client_left",
    ):
        assert told in text


def test_brackets_in_words_of_others_are_no_markup() -> None:
    text = shown(render.status(REPORT))
    assert "a[b] is pinned: [/] closes nothing" in text
    assert "[red]refused[/red]" in text


@pytest.mark.parametrize("width", [10, 20, 40, 80])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int) -> None:
    for line in shown(render.status(REPORT), width).splitlines():
        assert len(line) <= width


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ([], "none"),
        ({}, "none"),
        (True, "yes"),
        (0, "0"),
        ({"of": [1, "[x]"]}, "of 1, [x]"),
        ({"queued": 2, "failed": None}, "queued 2, failed none"),
    ],
)
def test_any_answer_can_be_shown(value: object, words: str) -> None:
    assert shown(render.fields({"some_key": value})).strip() == f"some key  {words}"


def test_each_item_of_a_list_has_a_line() -> None:
    lines = shown(render.fields({"valid": False, "problems": ["one", "two"]})).splitlines()
    assert [line.rstrip() for line in lines] == ["valid     no", "problems  one", "          two"]


def test_a_time_is_told_with_how_long_ago_it_was() -> None:
    text = shown(render.fields({"ended_at": time.time() - 90, "due_at": 0.0}))
    assert "1 min 30 s ago" in text
    assert re.search(r"due at +none", text)


def test_a_time_within_a_list_is_told_like_any_other() -> None:
    began = time.time() - 90
    attempts = [{"backend": "a", "started_at": began, "ended_at": 0.0}]
    text = " ".join(shown(render.fields({"attempts": attempts})).split())
    assert "1 min 30 s ago" in text
    assert f"{began:.0f}"[:6] not in text
    assert text.endswith("ended_at none")


@pytest.mark.parametrize("usable", [True, False])
def test_nobody_serves_while_no_server_is_usable(usable: bool) -> None:
    servers = [server | {"usable": usable} for server in REPORT["backends"]]
    serving = {"role": "primary", "pinned": None, "detail": "start"}
    text = shown(render.status(REPORT | {"backends": servers, "serving": serving}))
    (line,) = [line for line in text.splitlines() if line.startswith("serving")]
    assert "primary: start" in line
    assert ("nobody, no server is usable" in line) is not usable


def test_a_reason_stands_on_the_screen_once() -> None:
    report = REPORT | {
        "reasons": [
            "on the standby: no primary is usable",
            "backend a is down: nobody listens",
            "the store cannot be written: full",
            "something else",
        ],
        "serving": {"role": "standby", "pinned": None, "detail": "no primary is usable"},
        "store": {"url": "", "fault": "full"},
        "backends": [
            {"name": "a", "role": "primary", "state": "down", "reason": "nobody listens",
             "usable": False, "active": True, "pinned": False, "in_flight": 0, "max_in_flight": 1,
             "version": None, "features": [], "resting_seconds": 0.0},
        ],
    }  # fmt: skip
    text = shown(render.status(report))
    for told in ("no primary is usable", "nobody listens", "full", "something else"):
        assert text.count(told) == 1, text
    (line,) = [line for line in text.splitlines() if line.startswith("a ")]
    assert "yes" not in line


def test_no_reason_is_left_out_for_a_word_it_shares_with_the_reason_for_the_role() -> None:
    held = "paused by an operator: events are kept, none is started"
    serving = {"role": "primary", "pinned": None, "detail": "start"}
    assert held in shown(render.status(REPORT | {"reasons": [held], "serving": serving}))


def test_a_listed_event_keeps_its_brackets() -> None:
    event = {
        "event_id": "e",
        "state": "failed",
        "submitted_at": 0.0,
        "priority": 5,
        "backend": None,
        "owner": "[team]",
        "error": "api_timeout",
    }
    assert "[team]" in shown(render.events([event]))


def load_report(**change: Any) -> dict[str, Any]:
    percentiles = {"p50": 0.5, "p90": 1.0, "p95": 2.0, "p99": 75.0, "max": 80.0}
    return {
        "verdict": "missed",
        "missed": ["p95 of 2 s is above 1 s"],
        "loadtest": "open-loop",
        "pattern": {"rate": 2.5, "seed": 1},
        "seconds": 30.0,
        "max_tokens": 32,
        "stream": True,
        "target": "http://[::1]:5000",
        "slo": {
            "p95_seconds": 1.0,
            "error_share": 0.05,
            "queue_age_seconds": 300.0,
            "first_text_p95_seconds": 0.5,
        },
        "events": 75,
        "arrived_per_second": 2.5,
        "succeeded": 70,
        "succeeded_per_second": 2.3,
        "failed": 5,
        "error_share": 0.0667,
        "errors": {"api_timeout": 3, "rate_limited": 2},
        "daemon": {
            "slots": 2,
            "slot_use": 0.8,
            "queued_at_start": 1,
            "queued_at_most": 9,
            "queued_at_end": 4,
            "oldest_queued_seconds": 3.0,
        },
        "advice": ["the limit was met"],
        "answer_seconds": percentiles,
        "first_text_seconds": percentiles,
        "generator_late_seconds": dict.fromkeys(percentiles, 0.001),
    } | change


def test_the_report_on_a_load_test_tells_all_of_it() -> None:
    text = shown(render.loadtest(load_report()))
    for told in (
        "p95 of 2 s is above 1 s",
        "open-loop, 2.5/s for 30 s, up to 32 tokens, streams, to http://[::1]:5000",
        "95% answered within 1 s, begun within 0.5 s; at most 5.0% failed",
        "75 sent (2.5/s), 70 succeeded (2.3/s), 5 failed (6.7%)",
        "3 api_timeout",
        "2 rate_limited",
        "80% of 2 in use",
        "1 at the start, 9 at most, 4 at the end (+3); the oldest waited 3.0 s",
        "the limit was met",
    ):
        assert told in text
    rows = {line.split("  ")[0]: line.split()[-5:] for line in text.splitlines() if line}
    assert text.splitlines()[0].split() == ["verdict", "missed"]
    assert "1 min 15 s" in text
    assert rows["generator late"][-2:] == ["1", "ms"]


def test_what_is_not_known_is_said_to_be() -> None:
    report = load_report(daemon=None, first_text_seconds=None, pattern={"clients": 3})
    text = shown(render.loadtest(report))
    assert "not known" in text
    assert "first text" not in text
    assert "open-loop, 3 clients for 30 s" in text
