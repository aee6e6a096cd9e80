"""One file is one store, by whatever name it is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.sqlite.place import resolve
from tests.support.store.store_support import event, opened, state


def link_to_file(folder: Path) -> Path:
    return _link(folder / "link.db", folder / "real" / "events.db")


def relative_link_to_file(folder: Path) -> Path:
    return _link(folder / "link.db", Path("real/events.db"))


def link_to_link(folder: Path) -> Path:
    _link(folder / "second.db", folder / "real" / "events.db")
    return _link(folder / "link.db", Path("second.db"))


def link_to_folder(folder: Path) -> Path:
    return _link(folder / "link", folder / "real") / "events.db"


def roundabout(folder: Path) -> Path:
    return folder / "real" / ".." / "real" / "events.db"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _link(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


WAYS = [link_to_file, relative_link_to_file, link_to_link, link_to_folder, roundabout]


@pytest.mark.parametrize("is_there", [False, True], ids=["dangling", "there"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_store_behind_a_link_is_the_file_that_it_leads_to(
    tmp_path: Path, way: object, is_there: bool
) -> None:
    real = tmp_path / "real" / "events.db"
    real.parent.mkdir()
    assert callable(way)
    called = way(tmp_path)
    if is_there:
        async with opened(real) as store:
            await store.submit([event("before")], owned=False)
    async with opened(called) as store:
        await store.submit([event("through the link")], owned=False)
        await store.backup(tmp_path / "copy.db")
        beside = names(real.parent)
        assert beside == {"events.db", "events.db-wal", "events.db-shm", "events.db-seat-0"}
    async with opened(real) as store:
        assert await state(store, "through the link") is EventState.QUEUED
    assert not [name for name in names(tmp_path) if "seat" in name or "wal" in name]


async def test_two_daemons_that_call_it_differently_share_one_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = link_to_file(tmp_path)
    async with opened(link) as one, opened(tmp_path / "real" / "events.db") as two:
        await one.submit([event("a")], owned=False)
        lease = await two.claim(0, backend="primary", until=30)
        assert lease is not None
        assert await one.claim(0, backend="primary", until=30) is None
        assert {path.name for path in (tmp_path / "real").glob("*seat*")} == {
            "events.db-seat-0",
            "events.db-seat-1",
        }


async def test_links_that_lead_in_a_circle_are_told(tmp_path: Path) -> None:
    _link(tmp_path / "a", tmp_path / "b")
    _link(tmp_path / "b", tmp_path / "a")
    with pytest.raises((StoreUnavailable, ExceptionGroup)) as error:
        async with opened(tmp_path / "a"):
            pass
    assert error.group_contains(StoreUnavailable, match="Too many levels of symbolic links")


def test_a_file_with_a_second_name_is_refused_since_it_would_have_two_logs(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.touch()
    assert resolve(path) == path
    os.link(path, tmp_path / "other.db")
    with pytest.raises(OSError, match="hard link"):
        resolve(path)
