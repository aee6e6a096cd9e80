from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.store.instance_lock import NoSeatFree, Seat, SeatTaken, all_seats

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_seats_cannot_be_had_while_one_is_taken(tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    first, second = Seat.take(store), Seat.take(store)
    first.leave()
    with pytest.raises(SeatTaken, match=r"has .*events\.db open"), all_seats(store):
        pytest.fail("a daemon is there")
    assert second.is_free(0)
    second.leave()
    with all_seats(store):
        pass


def test_nobody_can_sit_down_while_all_seats_are_taken(tmp_path: Path) -> None:
    store = tmp_path / "events.db"
    Seat.take(store).leave()
    before = names(tmp_path)
    with all_seats(store):
        with pytest.raises(NoSeatFree):
            Seat.take(store)
        with pytest.raises(SeatTaken), all_seats(store):
            pytest.fail("they are taken")
    assert names(tmp_path) == before == {"events.db-seat-0"}
    Seat.take(store).leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_seats_made_by_root_are_the_daemons(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with all_seats(tmp_path / "events.db"):
        assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}


def test_a_lock_on_a_file_that_was_removed_is_no_seat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has opened a seat's file just before it is removed must not sit there beside another."""
    path = tmp_path / "events.db-seat-0"
    real, removed = fcntl.flock, False

    def flock(descriptor: int, how: int) -> None:
        nonlocal removed
        if not removed:
            removed = True
            path.unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    seat = Seat.take(tmp_path / "events.db")
    assert removed
    assert os.path.samestat(path.stat(), os.fstat(seat._descriptor))
    seat.leave()
