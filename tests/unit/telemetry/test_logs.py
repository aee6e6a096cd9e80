from __future__ import annotations

import io
import json
import socket
import struct
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.telemetry import journald
from ai_ticket_daemon.telemetry.logs import Logs

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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


def test_auto_is_journald_under_systemd_and_json_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_ticket_daemon.telemetry.logs.open_journal", lambda: None)
    assert Logs(stream=io.StringIO(), environ={}).format is LogFormat.JSON
    under_systemd = Logs(stream=io.StringIO(), environ={"JOURNAL_STREAM": "1:2"})
    assert under_systemd.format is LogFormat.JOURNALD


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


def decode(datagram: bytes) -> dict[str, str]:
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        (length,) = struct.unpack("<Q", rest[:8])
        fields[name.decode()] = rest[8 : 8 + length].decode()
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return fields


def test_the_journal_gets_native_fields_that_no_text_can_forge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(5)
        journal = journald.open_journal(path)
        monkeypatch.setattr("ai_ticket_daemon.telemetry.logs.open_journal", lambda: journal)
        logs = Logs(log_format=LogFormat.JOURNALD)
        logs.logger(actor="pool").warning(
            "failover", backend="a\nPRIORITY=0", message_id="f" * 32, trace_id="t" * 32
        )
        fields = decode(server.recv(65536))
    journal.close()
    assert fields["PRIORITY"] == "4"
    assert fields["MESSAGE"].startswith("failover actor=pool backend=a")
    assert fields["AI_TICKET_ACTOR"] == "pool"
    assert fields["AI_TICKET_BACKEND"] == "a\nPRIORITY=0"
    assert fields["MESSAGE_ID"] == "f" * 32
    assert fields["TRACE_ID"] == "t" * 32


def test_a_line_that_journald_does_not_take_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "journal")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(path)
    journal = journald.open_journal(path)
    server.close()
    journal.write({"MESSAGE": "lost?", "PRIORITY": "3"})
    journal.close()
    assert capsys.readouterr().err == "<3>lost?\n"
