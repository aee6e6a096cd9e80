from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ai_ticket_daemon.control import screen

REPORT: dict[str, Any] = {
    "status": "unhealthy",
    "reasons": ["no backend is usable"],
    "version": "0.1.0",
    "pid": 1,
    "uptime_seconds": 3700.0,
    "addresses": ["127.0.0.1:5000"],
    "draining": True,
    "paused": True,
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
    text = shown(screen.status(REPORT))
    for told in (
        "unhealthy draining paused",
        "no backend is usable",
        "up 1 h 1 min",
        "a[b] cut off for 12.0 s more",
        "3 queued, the oldest for 1 min 15 s",
        "[Errno 28] No space left",
        "refused: log.level: [nonsense]",
        "debug, 5 payloads captured",
        "1 min 15 s, 40 tokens and those of 2 attempts nobody counted on a: client_left",
    ):
        assert told in text


def test_brackets_in_words_of_others_are_no_markup() -> None:
    text = shown(screen.status(REPORT))
    assert "a[b] is pinned: [/] closes nothing" in text
    assert "[red]refused[/red]" in text


@pytest.mark.parametrize("width", [10, 20, 40, 80])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int) -> None:
    for line in shown(screen.status(REPORT), width).splitlines():
        assert len(line) <= width


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ([], "none"),
        ({}, "none"),
        (True, "yes"),
        (0, "0"),
        ([1, "[x]"], "1, [x]"),
        ({"queued": 2, "failed": None}, "queued 2, failed none"),
    ],
)
def test_any_answer_can_be_shown(value: object, words: str) -> None:
    assert shown(screen.fields({"some_key": value})).strip() == f"some key  {words}"


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
    assert "[team]" in shown(screen.events([event]))
