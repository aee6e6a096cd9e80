from __future__ import annotations

import io
import json
import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.telemetry.logs.messages import MESSAGES
from ai_ticket_daemon.testing.journal import decode, journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GUARD_SECONDS = 60


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_the_event_its_level_and_the_bound_fields() -> None:
    stream = io.StringIO()
    logs = Logs(log_format=LogFormat.JSON, stream=stream)
    logs.logger(actor="pool").warning("failover", backend="standby")
    (line,) = written(stream)
    assert line.pop("timestamp")
    assert line == {
        "event": "failover",
        "level": "warning",
        "actor": "pool",
        "backend": "standby",
        "message_id": MESSAGES["failover"].message_id,
    }


def test_the_level_can_be_changed_while_loggers_are_in_use() -> None:
    stream = io.StringIO()
    logs = Logs(LogLevel.WARNING, LogFormat.JSON, stream=stream)
    log = logs.logger()
    log.info("quiet")
    logs.level = LogLevel.DEBUG
    log.debug("loud")
    assert [line["event"] for line in written(stream)] == ["loud"]


def test_an_error_brings_its_traceback() -> None:
    stream = io.StringIO()
    log = Logs(log_format=LogFormat.JSON, stream=stream).logger()
    try:
        raise ValueError("bad")
    except ValueError as error:
        log.error("crashed", exc_info=error)
    assert "ValueError: bad" in str(written(stream)[0]["exception"])


def test_text_is_one_readable_line_without_colours_off_a_terminal() -> None:
    stream = io.StringIO()
    Logs(log_format=LogFormat.TEXT, stream=stream).logger(actor="app").info("started", port=1)
    assert "started" in stream.getvalue()
    assert "port=1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_auto_is_journald_only_on_the_very_stream_that_journald_reads(tmp_path: Path) -> None:
    assert Logs(stream=io.StringIO(), environ={}).format is LogFormat.JSON
    with journal(tmp_path) as (path, _), (tmp_path / "stderr").open("w") as stream:
        status = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        logs = Logs(stream=stream, environ=ours, journal_path=path)
        assert logs.format is LogFormat.JOURNALD
        logs.close()
        elsewhere = {"JOURNAL_STREAM": "1:2"}  # inherited, with standard error led elsewhere
        assert Logs(stream=stream, environ=elsewhere, journal_path=path).format is LogFormat.JSON
        gone = str(tmp_path / "gone")
        assert Logs(stream=stream, environ=ours, journal_path=gone).format is LogFormat.JSON


def test_journald_that_was_asked_for_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Logs(log_format=LogFormat.JOURNALD, journal_path=str(tmp_path / "gone"))


def test_lines_that_nobody_reads_any_more_are_lost_and_counted_not_raised() -> None:
    stream = io.StringIO()
    logs = Logs(log_format=LogFormat.JSON, stream=stream)
    stream.close()
    logs.logger().error("unheard")
    assert logs.take_losses() == 1


def test_what_a_library_logs_becomes_a_line_of_ours() -> None:
    stream = io.StringIO()
    library = Logs(log_format=LogFormat.JSON, stream=stream).library_logger("http_server")
    library.error("cannot %s", "serve")
    (line,) = written(stream)
    assert (line["event"], line["detail"], line["level"]) == (
        "http_server",
        "cannot serve",
        "error",
    )


def test_a_library_may_name_the_event_and_the_trace() -> None:
    stream = io.StringIO()
    library = Logs(log_format=LogFormat.JSON, stream=stream).library_logger("handler_crashed")
    extra = {"AI_TICKET_EVENT_ID": "id-1", "TRACE_ID": "t", "AI_TICKET_ERROR": "internal_error"}
    library.error("request_crashed", extra=extra)
    (line,) = written(stream)
    assert (line["event_id"], line["trace_id"], line["error"]) == ("id-1", "t", "internal_error")


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.JOURNALD])
def test_a_line_of_the_catalog_carries_its_message_id(
    log_format: LogFormat, tmp_path: Path
) -> None:
    stream = io.StringIO()
    with journal(tmp_path) as (path, server):
        logs = Logs(log_format=log_format, stream=stream, journal_path=path)
        logs.logger().warning("failover")
        logs.close()
        if log_format is LogFormat.JSON:
            found = written(stream)[0]["message_id"]
        else:
            found = decode(server.recv(65536))["MESSAGE_ID"]
    assert found == MESSAGES["failover"].message_id


def test_the_journal_gets_native_fields_that_no_text_can_forge(tmp_path: Path) -> None:
    with journal(tmp_path) as (path, server):
        logs = Logs(log_format=LogFormat.JOURNALD, journal_path=path)
        logs.logger(actor="pool").warning(
            "failover", backend="a\nPRIORITY=0", trace_id="t" * 32, error=None
        )
        fields = decode(server.recv(65536))
        logs.close()
    assert fields["PRIORITY"] == "4"
    assert fields["MESSAGE"].startswith("failover backend=a")
    assert fields["SYSLOG_IDENTIFIER"] == "ai-ticket-daemon"
    assert fields["AI_TICKET_ACTOR"] == "pool"
    assert fields["AI_TICKET_BACKEND"] == "a\nPRIORITY=0"
    assert fields["TRACE_ID"] == "t" * 32
    assert "AI_TICKET_ERROR" not in fields


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")],
)
def test_levels_become_the_priorities_of_syslog(level: str, priority: str, tmp_path: Path) -> None:
    with journal(tmp_path) as (path, server):
        logs = Logs(LogLevel.DEBUG, LogFormat.JOURNALD, journal_path=path)
        getattr(logs.logger(), level)("said")
        assert decode(server.recv(65536))["PRIORITY"] == priority
        logs.close()


def test_losses_are_said_once_lines_get_through_again(tmp_path: Path) -> None:
    with journal(tmp_path) as (path, server):
        logs = Logs(log_format=LogFormat.JOURNALD, journal_path=path)
        log = logs.logger()
        lost = 0
        while lost < 3:
            log.info("flood", detail="x" * 10_000)
            lost += logs.take_losses()
        names: list[str] = []
        fields: dict[str, str] = {}
        give_up_at = time.monotonic() + GUARD_SECONDS
        server.setblocking(False)
        while names[-1:] != ["log_lines_dropped"]:
            assert time.monotonic() < give_up_at
            # Asked again and again, as the sampler does: the last line has been received a moment
            # before the thread that sent it notices that it is idle.
            assert logs.take_losses() == 0
            try:
                fields = decode(server.recv(65536))
            except BlockingIOError:
                continue
            names.append(fields["AI_TICKET_LOG"])
        assert int(fields["AI_TICKET_DROPPED"]) == lost
        logs.close()
    assert set(names[:-1]) == {"flood"}


def fill(pipe: int) -> None:
    """Fill a pipe up, so that whoever writes to it blocks."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)


def drained(pipe: int, until: bytes) -> bytes:
    """Read from a pipe until something has come."""
    found = b""
    while until not in found:
        assert select.select([pipe], [], [], GUARD_SECONDS)[0], (
            f"nothing more after {found[-200:]!r}"
        )
        found += os.read(pipe, 65536)
    return found


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        logs = Logs(log_format=LogFormat.JSON, stream=stream)
        log = logs.logger()
        fill(write_end)
        began = time.perf_counter()
        for number in range(20_000):  # some 2 MB, twice of what may wait
            log.info("unread", number=number)
        assert time.perf_counter() - began < GUARD_SECONDS / 3
        lost = logs.take_losses()
        assert 0 < lost < 20_000
        # Whoever reads again gets what has waited, in order, and is told what was lost.
        found = drained(read_end, b'"number": 1000,')
        assert found.index(b'"number": 0,') < found.index(b'"number": 999,')
        last = 20_000 - lost - 1
        found += drained(read_end, f'"number": {last},'.encode())
        until(lambda: logs._plain.is_idle)
        assert logs.take_losses() == 0
        assert f'"dropped": {lost}'.encode() in drained(read_end, b"log_lines_dropped")
        logs.close()
    os.close(read_end)


def test_a_stop_does_not_wait_for_a_reader_that_stands_still() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        logs = Logs(log_format=LogFormat.JSON, stream=stream)
        fill(write_end)
        logs.logger().info("unread")
        began = time.perf_counter()
        logs.close()
        assert time.perf_counter() - began < GUARD_SECONDS / 3
        os.close(read_end)  # the thread that waits gets an error, and the line counts as lost
        until(lambda: logs._plain.is_idle)
        assert logs._lost.take() == 1


def test_lines_to_a_file_are_there_when_they_are_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        logs = Logs(log_format=LogFormat.JSON, stream=stream)
        logs.logger().info("long", text="x" * 10_000)
        logs.logger().info("short")
        logs.close()
        lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["long", "short"]


def until(true: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    give_up_at = time.monotonic() + GUARD_SECONDS
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)
