"""What is asked of the daemon when one command means many events, by a daemon of the test."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from ai_ticket_daemon.ctl import bulk, commands
from ai_ticket_daemon.ctl.cli import parser
from ai_ticket_daemon.ctl.session import Session

Captured = pytest.CaptureFixture[str]


@dataclass
class Pages:
    """Answers with these pages, one after the other, and keeps what was asked."""

    pages: list[dict[str, Any]]
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def change(self, operation: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append((operation, arguments))
        return self.pages[len(self.asked) - 1]

    look = change


def session_of(pages: list[dict[str, Any]], *words: str) -> tuple[Session, Pages]:
    session = Session(parser().parse_args([*words, "--json"]))
    client = Pages(pages)
    session.client = client  # type: ignore[assignment]
    return session, client


def page(count: int, below: int | None, *, changed: int = 0) -> dict[str, Any]:
    return {"event_ids": [f"e{n}" for n in range(count)], "changed": changed, "below": below}


def test_a_filter_is_only_counted_over_all_pages(capsys: Captured) -> None:
    words = ["events", "retry", "--error", "api_timeout", "--older-than", "2h"]
    session, client = session_of([page(500, 40), page(3, None)], *words)
    assert bulk.retry(session) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["action"], told["found"], told["changed"]) == ("retry", 503, 0)
    assert told["such_as"] == [f"e{n}" for n in range(10)]
    assert "Nothing was changed. Add --yes to do it." in err
    assert [asked["below"] for _, asked in client.asked] == [None, 40]
    for operation, asked in client.asked:
        assert operation == "bulk"
        assert (asked["apply"], asked["error"], asked["older_than"]) == (False, "api_timeout", 7200)


@pytest.mark.parametrize(("changed", "code"), [(2, 0), (1, 1)])
def test_with_yes_it_is_done_and_told_if_some_escaped(
    capsys: Captured, changed: int, code: int
) -> None:
    words = ["events", "cancel", "--state", "queued", "--yes"]
    session, client = session_of([page(2, None, changed=changed)], *words)
    assert bulk.cancel(session) == code
    assert client.asked[0][1]["apply"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["events", "purge"], "say which ones"),
        (["events", "purge", "e1"], "purge takes a filter"),
        (["events", "purge", "e1", "--state", "failed"], "not both"),
    ],
)
def test_what_is_not_meant_is_not_done(capsys: Captured, words: list[str], said: str) -> None:
    session, client = session_of([], *words)
    assert bulk.purge(session) == 2
    assert client.asked == []
    assert said in capsys.readouterr().err


def test_one_event_is_acted_on_at_once(capsys: Captured) -> None:
    session, client = session_of([{"state": "queued"}], "events", "retry", "e1")
    assert bulk.retry(session) == 0
    assert client.asked == [("retry", {"event_id": "e1"})]


def test_a_list_asks_for_pages_until_there_are_enough(capsys: Captured) -> None:
    pages = [{"events": [{}] * 500, "below": 9}, {"events": [{}] * 200, "below": 3}]
    session, client = session_of(pages, "events", "list", "--limit", "700")
    assert commands.events(session) == 0
    assert len(json.loads(capsys.readouterr().out)) == 700
    assert [(asked["limit"], asked["below"]) for _, asked in client.asked] == [
        (500, None),
        (200, 9),
    ]
