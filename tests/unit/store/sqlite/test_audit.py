"""The audit finds each kind of damage, and nothing in a store that is in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest
import trio

from ai_ticket_daemon.__main__ import main
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.sqlite.audit import audit_file
from tests.support.store.store_support import BROKEN, DONE, claimed, event, gone, opened

if TYPE_CHECKING:
    from pathlib import Path


async def fill(path: Path) -> None:
    """Leave behind two queued events, one running, and one ended in each way, one forgotten."""
    async with opened(path) as store:
        names = ["pruned", "done", "failed", "running", "cancelled", "queued", "also-queued"]
        await store.submit([event(name) for name in names], owned=False)
        await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 1)
        await store.prune(2, 10)
        await store.complete(await claimed(store), EventState.SUCCEEDED, DONE, 3)
        await store.complete(await claimed(store), EventState.FAILED, BROKEN, 3)
        await claimed(store)
        await store.cancel("cancelled", 3, gone)
        await store.submit([event("late", deadline_at=1)], owned=False)
        await store.expire(5, 10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "events.db"
    trio.run(fill, path)
    return path


def damage(path: Path, statement: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()


def test_a_store_in_order_counts_what_was_forgotten_too(path: Path) -> None:
    found = audit_file(path)
    assert (found.accepted, found.pruned, found.difference, found.problems) == (8, 1, 0, ())
    assert {state.value: number for state, number in found.states.items()} == {
        "queued": 2,
        "running": 1,
        "succeeded": 2,
        "failed": 1,
        "cancelled": 1,
        "expired": 1,
    }


@pytest.mark.parametrize(
    ("statement", "problems"),
    [
        (
            "DELETE FROM event WHERE event_id = 'queued'",
            [
                "1 contents belong to no event",
                "1 accepted events are in no state",
                "the total 'queued' says 2, counted were 1",
                "the total 'queued:5' says 2, counted were 1",
            ],
        ),
        (
            "UPDATE tally SET value = value + 1 WHERE name = 'accepted'",
            ["1 accepted events are in no state"],
        ),
        (
            "UPDATE tally SET value = 7 WHERE name = 'failed'",
            ["the total 'failed' says 7, counted were 1"],
        ),
        (
            "UPDATE tally SET value = 0 WHERE name = 'queued:5'",
            ["the total 'queued:5' says 0, counted were 2"],
        ),
        (
            "INSERT INTO tally VALUES ('queued:0', 1)",
            ["the total 'queued:0' says 1, counted were 0"],
        ),
        (
            "UPDATE tally SET value = 0 WHERE name = 'pruned:succeeded'",
            [
                "1 accepted events are in no state",
                "the total 'succeeded' says 2, counted were 1",
            ],
        ),
        (
            "DELETE FROM result WHERE seq = (SELECT seq FROM event WHERE event_id = 'failed')",
            ["1 ended events have no result"],
        ),
        (
            "INSERT INTO result SELECT seq, '{}' FROM event WHERE event_id = 'queued'",
            ["1 events that have not ended have a result"],
        ),
        (
            "DELETE FROM content WHERE seq = (SELECT seq FROM event WHERE event_id = 'running')",
            ["1 events have no content"],
        ),
        ("INSERT INTO result VALUES (999, '{}')", ["1 results belong to no event"]),
        (
            "UPDATE event SET holder = NULL WHERE event_id = 'running'",
            ["1 running events are held by no daemon"],
        ),
        (
            "UPDATE event SET ended_at = NULL WHERE event_id = 'done'",
            ["1 ended events have no time of their end"],
        ),
        (
            "UPDATE event SET state = 'limbo' WHERE event_id = 'queued'",
            [
                "1 ended events have no result",
                "1 ended events have no time of their end",
                "1 events are in the unknown state 'limbo'",
                "1 accepted events are in no state",
                "the total 'queued' says 2, counted were 1",
                "the total 'queued:5' says 2, counted were 1",
            ],
        ),
    ],
)
def test_each_kind_of_damage_is_named(path: Path, statement: str, problems: list[str]) -> None:
    damage(path, statement)
    assert list(audit_file(path).problems) == problems


async def test_a_store_is_audited_while_a_daemon_writes_to_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event("a")], owned=False)
        await claimed(store)
        found = audit_file(tmp_path / "events.db")
        assert (found.states[EventState.RUNNING], found.problems) == (1, ())
        await store.submit([event("b")], owned=False)
        assert await store.complete(await claimed(store), EventState.FAILED, BROKEN, 1)


def unreadable(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "events.db"
    if kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(b"not a database at all" * 500)
    elif kind == "foreign":
        damage(path, "CREATE TABLE theirs (a)")
    elif kind == "newer":
        trio.run(fill, path)
        damage(path, "PRAGMA user_version = 99; UPDATE note SET value = 99")
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "cannot be opened"),
        ("empty", "no daemon has used it yet"),
        ("noise", "is no database"),
        ("foreign", "another program"),
        ("newer", "newer version"),
    ],
)
def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path, kind: str, reason: str) -> None:
    path = unreadable(tmp_path, kind)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StoreUnavailable, match=reason):
        audit_file(path)
    assert (path.read_bytes() if path.exists() else None) == before


def test_the_command_prints_the_figures_and_tells_by_its_exit_code(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = tmp_path / "ai-ticket.conf"
    server = '[[backends.server]]\nname = "a"\nurl = "http://127.0.0.1:1"\n'
    conf.write_text(f'store.url = "sqlite:///{path}"\n{server}')
    command = ["--config", str(conf), "--audit"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "accepted               8" in printed
    assert "The store is in order." in printed
    damage(path, "DELETE FROM result")
    assert main(command) == 1
    assert "wrong: 4 ended events have no result" in capsys.readouterr().out
    path.write_bytes(b"x" * 5000)
    assert main(command) == 69
    assert "is no database" in capsys.readouterr().err
    conf.write_text(f'store.url = "memory:"\n{server}')
    assert main(command) == 69
    conf.write_text("nonsense = 1\n")
    assert main(command) == 78
