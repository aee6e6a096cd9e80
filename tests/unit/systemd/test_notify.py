"""What systemd is told, read from a real datagram socket, and what is read from the environment."""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.systemd.notify import (
    MAX_STATUS_CHARACTERS,
    PATIENCE_SECONDS,
    Notifier,
    Systemd,
    from_environment,
    journal_reads,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PID = 4711


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """What systemd does: a datagram socket at the address of ``$NOTIFY_SOCKET``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if address.startswith("@") else address)
        manager.settimeout(5)
        yield manager


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "path":
        return str(tmp_path / "notify")
    return f"@ai-ticket-test-{os.getpid()}-{tmp_path.name}"


@pytest.mark.parametrize(
    ("tell", "message"),
    [
        (Notifier.ready, "READY=1"),
        (Notifier.stopping, "STOPPING=1"),
        (Notifier.watchdog, "WATCHDOG=1"),
        (lambda notifier: notifier.extend_timeout(2.5), "EXTEND_TIMEOUT_USEC=2500000"),
        (lambda notifier: notifier.status("3 queued"), "STATUS=3 queued"),
        (lambda notifier: notifier.status("größer → 日本"), "STATUS=größer → 日本"),
    ],
)
def test_each_message_is_one_datagram(
    address: str, tell: Callable[[Notifier], None], message: str
) -> None:
    with listening(address) as manager:
        tell(Notifier(address))

        assert manager.recv(4096).decode() == message


def test_a_reload_is_announced_with_its_moment(address: str) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with listening(address) as manager:
        Notifier(address).reloading()
        reloading, moment = manager.recv(4096).decode().split("\n")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    assert reloading == "RELOADING=1"
    name, _, microseconds = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= after


def test_a_status_cannot_forge_a_message_and_is_kept_short(address: str) -> None:
    with listening(address) as manager:
        Notifier(address).status("first\nREADY=1\n" + "x" * 2000)
        message = manager.recv(4096).decode()

    assert message.startswith("STATUS=first READY=1 xxx")
    assert "\n" not in message
    assert len(message) == len("STATUS=") + MAX_STATUS_CHARACTERS


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    Notifier().ready()
    Notifier(str(tmp_path / "nobody")).ready()


def test_a_systemd_that_does_not_read_holds_up_nobody_for_long(address: str) -> None:
    with listening(address) as manager:
        notifier = Notifier(address)
        while notifier.status("fills the queue"):
            pass
        started = time.monotonic()
        for _ in range(100):
            assert not notifier.status("dropped at once")
        notifier.ready()  # somebody waits for this one, so it is tried a little longer
        assert time.monotonic() - started < 100 * PATIENCE_SECONDS / 2

        manager.recv(4096)
        assert notifier.status("there is room again")


def test_nothing_in_the_environment_means_no_systemd() -> None:
    assert from_environment({}, PID) == Systemd()


def test_the_watchdog_is_that_of_this_process_or_of_nobody() -> None:
    environ = {"WATCHDOG_USEC": "30000000"}

    assert from_environment(environ, PID).watchdog_seconds == 30
    assert from_environment(environ | {"WATCHDOG_PID": str(PID)}, PID).watchdog_seconds == 30
    assert from_environment(environ | {"WATCHDOG_PID": "1"}, PID).watchdog_seconds is None
    assert from_environment({"WATCHDOG_USEC": "0"}, PID).watchdog_seconds is None
    assert from_environment({"WATCHDOG_USEC": "often"}, PID).watchdog_seconds is None


def test_sockets_come_with_their_names() -> None:
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:spare"}

    assert from_environment(environ, PID).listen_fds == ((3, "http"), (4, "spare"))
    del environ["LISTEN_FDNAMES"]
    assert from_environment(environ, PID).listen_fds[1] == (4, "unknown")


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2"}

    assert from_environment(environ, PID).listen_fds == ()
    assert from_environment({"LISTEN_FDS": "2"}, PID).listen_fds == ()


def test_only_the_journals_own_stream_counts_as_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as stream:
        opened = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{opened.st_dev}:{opened.st_ino}"}

        assert journal_reads(ours, stream.fileno())
        assert not journal_reads({"JOURNAL_STREAM": "8:1234"}, stream.fileno())
        assert not journal_reads({}, stream.fileno())
    assert not journal_reads(ours, -1)
