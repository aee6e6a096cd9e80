"""journald as it may be: stalled, gone, back again; nothing of it may hold up the daemon."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from ai_ticket_daemon.telemetry.logs.journald import SEND_SECONDS, JournalWriter
from ai_ticket_daemon.telemetry.logs.logs import Tally
from ai_ticket_daemon.testing.journal import journal, receive

GUARD_SECONDS = 60
"""Where closing waits for a journald that stands still, it waits for ever."""


def line(number: int, text: str = "") -> dict[str, str]:
    return {"MESSAGE": text or f"line {number}", "NUMBER": str(number)}


def test_a_stalled_journald_holds_nobody_up_and_costs_only_what_does_not_fit(
    tmp_path: Path,
) -> None:
    lost = Tally()
    with journal(tmp_path) as (path, server):
        writer = JournalWriter(path, dropped=lost.add, queue_bytes=100_000)
        took = []
        for number in range(20_000):
            began = time.perf_counter()
            writer.write(line(number))
            took.append(time.perf_counter() - began)
        # But for a few for which the host was busy.
        assert sorted(took)[-5] < SEND_SECONDS / 2
        dropped = lost.take()
        assert 0 < dropped < 20_000
        arrived = [int(receive(server)["NUMBER"]) for _ in range(20_000 - dropped)]
        assert arrived == sorted(set(arrived))
        writer.write(line(1, "and now?"))
        assert receive(server)["MESSAGE"] == "and now?"
        writer.close()
    assert lost.take() == 0


def test_a_line_too_big_for_a_datagram_arrives_as_a_file(tmp_path: Path) -> None:
    text = "traceback\n" * 200_000
    with journal(tmp_path) as (path, server):
        writer = JournalWriter(path, dropped=Tally().add)
        writer.write(line(1, text))
        writer.write(line(2))
        assert receive(server)["MESSAGE"] == text
        assert receive(server)["NUMBER"] == "2"
        writer.close()


def test_a_restart_of_journald_loses_nothing(tmp_path: Path) -> None:
    with journal(tmp_path) as (path, server):
        writer = JournalWriter(path, dropped=Tally().add)
        writer.write(line(1))
        assert receive(server)["NUMBER"] == "1"
        Path(path).unlink()
    writer.write(line(2))
    writer.write(line(3))
    with journal(tmp_path) as (_, server):
        assert [receive(server)["NUMBER"] for _ in range(2)] == ["2", "3"]
        writer.close()


def test_closing_sends_what_waits(tmp_path: Path) -> None:
    with journal(tmp_path) as (path, server):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        writer = JournalWriter(path, dropped=Tally().add)
        for number in range(5):
            writer.write(line(number))
        writer.close()
        assert [receive(server)["NUMBER"] for _ in range(5)] == list("01234")


def test_closing_before_a_stalled_journald_is_bounded_and_counts_what_is_lost(
    tmp_path: Path,
) -> None:
    lost = Tally()
    with journal(tmp_path) as (path, _):
        writer = JournalWriter(path, dropped=lost.add)
        for number in range(1000):
            writer.write(line(number))
        began = time.perf_counter()
        writer.close(timeout_seconds=0.5)
        assert time.perf_counter() - began < GUARD_SECONDS
        assert lost.take() >= 1000 - 600  # what the socket itself holds is not known to be lost
        writer.write(line(1001))
        assert lost.take() == 1
