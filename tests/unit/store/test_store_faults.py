"""What the store on disk does when the disk, the file or another program is in its way."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import pytest
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.port import CutOff
from ai_ticket_daemon.store.sqlite.audit import audit_file
from ai_ticket_daemon.store.sqlite.log_file import LogFile
from tests.support.store.store_support import DONE, Faults, claimed, event, opened, state

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.store.sqlite.store import SqliteStore

RECOVERY_SECONDS = 60


async def recovered(faults: Faults) -> None:
    """Wait until the store has said that it works again."""
    with trio.fail_after(RECOVERY_SECONDS):
        while not faults.recovered:  # noqa: ASYNC110 - told from the store's own task
            await trio.sleep(0.02)


async def failed(faults: Faults) -> None:
    with trio.fail_after(RECOVERY_SECONDS):
        while not faults.failed:  # noqa: ASYNC110 - as above
            await trio.sleep(0.02)


async def refused(store: SqliteStore, name: str) -> str:
    with pytest.raises(StoreUnavailable) as error:
        await store.submit([event(name)], owned=False)
    return error.value.message


class FullDisk(LogFile):
    """A log on a disk that can be full."""

    full = False

    def sync(self) -> None:
        if self.full:
            raise OSError(28, os.strerror(28), str(self._path))
        super().sync()


async def test_a_sync_that_fails_is_told_and_the_store_recovers_by_itself(tmp_path: Path) -> None:
    faults, log = Faults(), FullDisk(tmp_path / "events.db")
    async with opened(tmp_path / "events.db", faults=faults, log=log) as store:
        await store.submit([event("before")], owned=False)
        lease = await claimed(store)
        log.full = True
        assert "No space left" in await refused(store, "meanwhile")
        with pytest.raises(StoreUnavailable):
            await store.complete(lease, EventState.SUCCEEDED, DONE, 1)
        assert store.fault is not None
        log.full = False
        await recovered(faults)
        assert await store.complete(lease, EventState.SUCCEEDED, DONE, 1)
        await store.submit([event("after")], owned=False)
    assert audit_file(tmp_path / "events.db").problems == ()


async def test_a_file_locked_by_another_program_is_named_and_used_again_later(
    tmp_path: Path,
) -> None:
    path, faults = tmp_path / "events.db", Faults()
    async with opened(path, faults=faults) as store:
        with closing(apsw.Connection(str(path))) as other:
            other.execute("BEGIN IMMEDIATE")
            assert "another program has locked the file" in await refused(store, "locked out")
            assert await store.get("locked out") is None  # reading goes on
            other.execute("ROLLBACK")
        await recovered(faults)
        await store.submit([event("a")], owned=False)
        assert await state(store, "a") is EventState.QUEUED


async def test_a_file_that_was_removed_is_noticed_and_taken_up_when_it_is_back(
    tmp_path: Path,
) -> None:
    path, faults = tmp_path / "events.db", Faults()
    away = tmp_path / "away"
    away.mkdir()
    async with opened(path, faults=faults) as store:
        await store.submit([event("a")], owned=False)
        for name in ("events.db", "events.db-wal", "events.db-shm"):
            (tmp_path / name).rename(away / name)
        await failed(faults)
        assert faults.failed == ["the file was removed or replaced: put it back"]
        await refused(store, "b")
        for name in ("events.db", "events.db-wal", "events.db-shm"):
            (away / name).rename(tmp_path / name)
        await recovered(faults)
        assert await state(store, "a") is EventState.QUEUED
        await store.submit([event("c")], owned=False)


@pytest.mark.parametrize("deed", ["moved", "deleted", "replaced", "folder moved"])
async def test_what_is_written_to_a_file_without_its_name_is_never_acknowledged(
    tmp_path: Path, deed: str
) -> None:
    folder, faults = tmp_path / "store", Faults()
    path, away, other = folder / "events.db", tmp_path / "away", tmp_path / "other"
    async with opened(path, faults=faults) as store:
        await store.submit([event("before")], owned=False)
        # All before the store looks by itself, which it does once a second.
        if deed == "folder moved":
            folder.rename(away)
        else:
            away.hardlink_to(path)
            path.unlink()
        if deed == "replaced":
            other.write_bytes(away.read_bytes())
            other.rename(path)
        assert "removed or replaced" in await refused(store, "meanwhile")
        away.rename(folder if deed == "folder moved" else path)
        await recovered(faults)
        assert await state(store, "before") is EventState.QUEUED
        await store.submit([event("after")], owned=False)
    assert audit_file(path).problems == ()


async def test_a_log_that_was_removed_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, faults = tmp_path / "events.db", Faults()
    async with opened(path, faults=faults) as store:
        for number in range(20):
            await store.submit([event(f"before {number}")], owned=False)
        path.with_name("events.db-wal").unlink()
        assert "the -wal file" in await refused(store, "meanwhile")
        await recovered(faults)
        await store.submit([event("after")], owned=False)
        for number in range(20):
            assert await state(store, f"before {number}") is EventState.QUEUED
    assert audit_file(path).problems == ()


async def test_a_file_put_in_place_of_the_store_is_refused_until_the_store_is_back(
    tmp_path: Path,
) -> None:
    path, faults = tmp_path / "events.db", Faults()
    async with opened(path, faults=faults) as store:
        await store.submit([event("a")], owned=False)
        lease = await claimed(store)
        away = tmp_path / "away"
        away.mkdir()
        for name in ("events.db", "events.db-wal", "events.db-shm"):
            (tmp_path / name).rename(away / name)
        path.write_text("this is no database " * 400)
        await failed(faults)
        with trio.fail_after(RECOVERY_SECONDS):
            while "no database" not in faults.failed[-1]:  # noqa: ASYNC110 - as above
                await trio.sleep(0.02)
        assert "restore it from a backup" in await refused(store, "b")
        with pytest.raises(StoreUnavailable):
            await store.complete(lease, EventState.SUCCEEDED, DONE, 1)
        for name in ("events.db", "events.db-wal", "events.db-shm"):
            (away / name).rename(tmp_path / name)
        await recovered(faults)
        assert await store.complete(lease, EventState.SUCCEEDED, DONE, 1)
        assert await state(store, "a") is EventState.SUCCEEDED


async def start_refused(path: Path) -> str:
    with pytest.raises(ExceptionGroup) as group:
        async with opened(path):
            pass
    error: BaseException = group.value
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    assert isinstance(error, StoreUnavailable)
    return error.message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("noise", "is no database"),
        ("foreign", "another program"),
        ("newer", "newer version"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_at_the_start_and_left_alone(
    tmp_path: Path, kind: str, reason: str
) -> None:
    path = tmp_path / "events.db"
    if kind == "noise":
        path.write_bytes(b"not a database at all" * 500)
    else:
        if kind == "newer":
            async with opened(path):
                pass
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute(
                "PRAGMA user_version = 99; UPDATE note SET value = 99"
                if kind == "newer"
                else "CREATE TABLE theirs (a)"
            )
    before = path.read_bytes()
    assert reason in await start_refused(path)
    assert path.read_bytes() == before


async def test_a_missing_directory_is_made_but_not_its_parents(tmp_path: Path) -> None:
    async with opened(tmp_path / "made" / "events.db") as store:
        await store.submit([event("a")], owned=False)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "made" / "events.db").stat().st_mode & 0o777 == 0o600
    assert "No such file" in await start_refused(tmp_path / "not" / "made" / "events.db")


async def test_one_bad_write_does_not_take_its_group_along(tmp_path: Path) -> None:
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event("taken")], owned=False)
        errors: list[Exception] = []

        async def submit(name: str) -> None:
            try:
                await store.submit([event(name)], owned=False)
            except apsw.ConstraintError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for name in ("a", "taken", "b"):  # the same id twice: nobody foresaw that
                nursery.start_soon(submit, name)
        assert len(errors) == 1
        assert store.fault is None
        assert [await state(store, name) for name in ("a", "b")] == [EventState.QUEUED] * 2
    assert audit_file(tmp_path / "events.db").problems == ()


async def test_what_another_daemons_client_waits_for_is_left_to_it_while_it_lives(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as other:
        async with opened(path) as theirs:
            await theirs.submit([event("theirs")], owned=True)
            await other.changed_elsewhere()
            assert await other.claim(0, backend="primary", until=30) is None
            assert await other.recover(0) == []
        await other.recover(0)
        assert (await claimed(other)).event.event_id == "theirs"


async def test_running_events_come_back_from_the_dead_and_from_those_that_hang(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as watching:
        async with opened(path) as hanging:
            await hanging.submit([event("a")], owned=False)
            lease = await claimed(hanging)
            assert await watching.recover(29) == []
            assert await watching.recover(30) == ["a"]
            assert not await hanging.complete(lease, EventState.SUCCEEDED, DONE, 31)
            await claimed(hanging, 31)
        assert await watching.recover(32) == ["a"]
        record = await watching.get("a")
        assert record is not None
        assert [attempt.counted for attempt in record.attempts] == [True, True]
        await claimed(watching, 33)
    faults = Faults()
    async with opened(path, faults=faults):
        assert faults.events == ["a"]


@pytest.mark.parametrize("own", [True, False], ids=["by the next one", "by another one"])
async def test_requests_whose_daemon_died_are_told_once_each(own: bool, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    faults = Faults()
    batch = {"traceparent": "00-b-1-01", "client_span": "2"}
    async with opened(path, faults=faults) as other:
        async with opened(path) as dying:
            one = event("one", submitted_at=5.0, trace_context={"traceparent": "00-a-1-01"})
            await dying.submit([one], owned=True)
            many = [event(f"of {n}", submitted_at=7.0, trace_context=batch) for n in range(3)]
            await dying.submit(many, owned=True)
            await dying.submit([event("nobody waits")], owned=False)
            await claimed(dying)
        if not own:
            await other.recover(1)
            assert len(faults.requests) == 2
    if own:
        # The first of them sits where ``other`` sat.
        async with opened(path), opened(path, faults=faults):
            pass
    assert sorted(faults.requests, key=lambda cut: cut.began_at) == [
        CutOff({"traceparent": "00-a-1-01"}, 5.0, "one"),
        CutOff(batch, 7.0, None),
    ]
    faults.requests.clear()
    async with opened(path, faults=faults), opened(path, faults=faults):
        assert faults.requests == []


async def test_a_daemon_that_stops_in_order_leaves_no_request_behind(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with opened(path) as stopping:
        await stopping.submit([event("waits")], owned=True)
        async with opened(path) as other:
            assert await other.claim(0, backend="primary", until=30) is None
            await stopping.release_owner()
            await other.changed_elsewhere()
            assert (await claimed(other)).event.event_id == "waits"
    faults = Faults()
    async with opened(path, faults=faults):
        assert faults.requests == []
