"""What is put in the place of the store, and what is not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import apsw
import pytest
import trio

from ai_ticket_daemon.ctl import main as ctl
from ai_ticket_daemon.ctl.restore import thin_out
from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLock
from ai_ticket_daemon.store.sqlite.schema import MIGRATIONS
from tests.support.store.store_support import event, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Captured = pytest.CaptureFixture[str]


async def fill(path: Path, *names: str) -> None:
    async with opened(path) as store:
        await store.submit([event(name) for name in names], owned=False)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "copy" / "events.db"
    path.parent.mkdir()
    trio.run(fill, path, "a", "b", "c")
    change(path, "PRAGMA journal_mode = DELETE")
    for part in path.parent.iterdir():
        if part != path:
            part.unlink()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "events.db"
    path.parent.mkdir()
    trio.run(fill, path, "old")
    return path


def change(path: Path, statement: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()


def restore(captured: Captured, backup: Path, store: Path, code: int = 0) -> Any:
    captured.readouterr()
    returned = ctl.main(["restore", str(backup), "--to", str(store), "--json"])
    out, err = captured.readouterr()
    assert returned == code, out + err
    return json.loads(out) if code == 0 else err


def ids(path: Path) -> list[str]:
    connection = apsw.Connection(str(path))
    found = [row[0] for row in connection.execute("SELECT event_id FROM event ORDER BY seq")]
    connection.close()
    return found


def names(store: Path) -> set[str]:
    return {part.name for part in store.parent.iterdir()}


def test_a_backup_takes_the_place_of_the_store_which_is_kept(
    capsys: Captured, backup: Path, store: Path
) -> None:
    store.with_name("events.db-wal").write_bytes(b"what was written lately")
    told = restore(capsys, backup, store)
    assert (told["restored"], told["events"]) == (str(store), 3)
    assert "systemctl start" in told["next"]
    assert ids(store) == ids(backup) == ["a", "b", "c"]
    assert store.stat().st_mode & 0o777 == 0o600
    kept = store.parent / told["kept"]
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"what was written lately"
    kept.with_name(f"{kept.name}-wal").unlink()
    assert ids(kept) == ["old"]
    assert not store.with_name("events.db-wal").exists()


def test_a_store_that_is_not_there_yet_is_made(
    capsys: Captured, backup: Path, tmp_path: Path
) -> None:
    told = restore(capsys, backup, tmp_path / "new.db")
    assert told["kept"] is None
    assert ids(tmp_path / "new.db") == ["a", "b", "c"]


def test_a_restored_store_serves(capsys: Captured, backup: Path, store: Path) -> None:
    restore(capsys, backup, store)
    trio.run(fill, store, "d")
    assert ids(store) == ["a", "b", "c", "d"]


def test_nothing_is_restored_while_a_daemon_has_the_store_open(
    capsys: Captured, backup: Path, store: Path
) -> None:
    InstanceLock.take(store).release()  # somebody was there before
    lock = InstanceLock.take(store)
    before = names(store)
    said = restore(capsys, backup, store, code=1)
    assert "a daemon has" in said
    assert "systemctl stop ai-ticket.socket ai-ticket.service" in said
    assert (ids(store), names(store)) == (["old"], before)
    lock.release()
    assert restore(capsys, backup, store)["events"] == 3


def newer(path: Path) -> None:
    newer_schema = len(MIGRATIONS) + 1
    change(path, f"PRAGMA user_version = {newer_schema}; UPDATE note SET value = {newer_schema}")


def foreign(path: Path) -> None:
    change(path, "PRAGMA application_id = 7")


def short_of_one(path: Path) -> None:
    change(path, "DELETE FROM event WHERE event_id = 'b'")


def junk(path: Path) -> None:
    path.write_bytes(b"junk" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 4] = bytes(4096 * 2)
    path.write_bytes(data)


def in_use(path: Path) -> None:
    path.with_name(f"{path.name}-wal").touch()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (newer, "written by a newer version"),
        (foreign, "a database of another program"),
        (short_of_one, "does not add up"),
        (junk, "cannot be used as a store"),
        (empty, "cannot be used as a store"),
        (damaged, "damaged|malformed|add up"),
        (in_use, "a store in use"),
    ],
)
def test_what_is_no_good_copy_is_refused_and_changes_nothing(
    capsys: Captured, backup: Path, store: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(backup)
    before = names(store)
    assert re.search(said, restore(capsys, backup, store, code=1))
    assert (ids(store), names(store)) == (["old"], before)


def test_a_backup_that_is_not_there_is_told(capsys: Captured, tmp_path: Path, store: Path) -> None:
    assert "No such file" in restore(capsys, tmp_path / "none", store, code=1)


def copies(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_of_dated_copies_the_newest_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    days = [f"events-202611{day:02d}T000000Z.db" for day in range(1, 6)]
    others = {"events.db", "events-20261101T000000Z.db-wal", "notes", ".events-x.db"}
    for name in (*days, *others):
        (tmp_path / name).touch()
    deleted = thin_out(tmp_path / days[-1], 3)
    assert deleted == [str(tmp_path / name) for name in days[:2]]
    assert copies(tmp_path) == {*days[2:], *others}


def test_the_copy_that_was_just_made_is_kept_though_the_clock_was_set_back(tmp_path: Path) -> None:
    days = [f"events-202611{day:02d}T000000Z.db" for day in range(1, 6)]
    for name in days:
        (tmp_path / name).touch()
    thin_out(tmp_path / days[0], 2)
    assert copies(tmp_path) == {days[0], days[-1]}
    thin_out(tmp_path / days[0], 1)
    assert copies(tmp_path) == {days[0]}


def test_copies_can_only_be_kept_in_a_directory(tmp_path: Path, capsys: Captured) -> None:
    arguments = ["backup", "--output", str(tmp_path / "copy.db"), "--keep", "3"]
    assert ctl.main(arguments) == 2
    assert "--directory" in capsys.readouterr().err
