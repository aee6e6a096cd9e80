from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.store.sqlite.instance_lock import (
    InstanceLock,
    InstanceLockTaken,
    TooManyInstances,
    all_instance_locks,
)

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_instance_locks_cannot_be_had_while_one_is_taken(tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    first, second = InstanceLock.take(store), InstanceLock.take(store)
    first.release()
    with (
        pytest.raises(InstanceLockTaken, match=r"has .*events\.db open"),
        all_instance_locks(store),
    ):
        pytest.fail("a daemon is there")
    assert second.is_free(0)
    second.release()
    with all_instance_locks(store):
        pass


def test_no_daemon_can_start_while_all_instance_locks_are_taken(tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    InstanceLock.take(store).release()
    before = names(tmp_path)
    with all_instance_locks(store):
        with pytest.raises(TooManyInstances):
            InstanceLock.take(store)
        with pytest.raises(InstanceLockTaken), all_instance_locks(store):
            pytest.fail("they are taken")
    assert names(tmp_path) == before == {"events.db-seat-0"}
    InstanceLock.take(store).release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_locks_made_by_root_are_the_daemons(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with all_instance_locks(tmp_path / "events.db"):
        assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}


def test_a_lock_on_a_file_that_was_removed_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that opened the file just before it was removed must not hold a second lock."""
    path = tmp_path / "events.db-seat-0"
    real, removed = fcntl.flock, False

    def flock(descriptor: int, how: int) -> None:
        nonlocal removed
        if not removed:
            removed = True
            path.unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = InstanceLock.take(tmp_path / "events.db")
    assert removed
    assert os.path.samestat(path.stat(), os.fstat(lock._descriptor))
    lock.release()
