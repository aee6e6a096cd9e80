"""What looks on, on a host that is out of something: it costs lines, and nobody else."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.log import LogConfig
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.host.exhaustion import Resource
from ai_ticket_daemon.telemetry.capture import Capture, Refused
from ai_ticket_daemon.telemetry.logs.journald import JournalWriter
from ai_ticket_daemon.telemetry.logs.logs import Tally
from ai_ticket_daemon.telemetry.logs.stream import StreamWriter
from ai_ticket_daemon.telemetry.traces.span_sender import DropReason, SpanSender
from ai_ticket_daemon.testing.journal import journal, receive
from tests.support.lacks import REAL_SECONDS, TIMES, Lack, Lines, until

if TYPE_CHECKING:
    from pathlib import Path


async def test_payloads_are_kept_again_once_that_can_be_done(
    lack: Lack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()
    settings = LogConfig(capture_payloads=5, capture_directory=tmp_path / "captures")
    capture = Capture(lambda: settings, lines.log, exhaustion=lack.exhaustion(), clock=Clock())
    refused = Refused("4b", "/event", ErrorCode.INVALID_PARAMETER, "Too many.", {}, b"{}")
    monkeypatch.setattr(trio.to_thread, "run_sync", lack.before(trio.to_thread.run_sync))
    lack.raised()
    async with trio.open_nursery() as nursery:
        await nursery.start(capture.run)
        for _ in range(TIMES + 1):
            capture.refused(refused)
        await until(lambda: list(tmp_path.glob("captures/[!.]*")))
        nursery.cancel_scope.cancel()
    assert lack.met == ["capture"]
    told = [line["reason"] for line in lines.named("capture_failed")]
    assert told == [lack.resource.lack]


THREADLESS = (Resource.THREADS, Resource.MEMORY)
"""What can be lacking for a thread to be started; it takes no descriptor."""


@pytest.mark.parametrize("resource", THREADLESS, ids=str)
def test_lines_for_a_stream_wait_for_a_thread(
    resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack, lost = Lack(resource), Tally()
    monkeypatch.setattr(threading.Thread, "start", lack.before(threading.Thread.start))
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream, os.fdopen(ours, "rb") as reader:
        os.set_blocking(theirs, False)
        taken = 0
        while True:  # until the pipe is full
            try:
                taken += os.write(theirs, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(theirs, True)
        writer = StreamWriter(stream, dropped=lost.add)
        lack.raised()
        for number in range(TIMES + 1):
            writer.write(f"line {number}")
        assert lack.left == 0
        assert reader.read(taken) == b"x" * taken
        assert [reader.readline() for _ in range(TIMES + 1)] == [
            b"line %d\n" % number for number in range(TIMES + 1)
        ]
        writer.close()
    assert lost.take() == 0


def test_a_line_for_which_there_is_no_memory_costs_nobody_more_than_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack, lost = Lack(Resource.MEMORY), Tally()
    ours, theirs = os.pipe()
    with (
        os.fdopen(theirs, "w", encoding="utf-8") as stream,
        os.fdopen(ours, "rb") as reader,
        journal(tmp_path) as (path, server),
    ):
        to_journal = JournalWriter(path, dropped=lost.add)
        to_stream = StreamWriter(stream, dropped=lost.add)
        encode = "ai_ticket_daemon.telemetry.logs.journald.encode"
        from ai_ticket_daemon.telemetry.logs import journald

        monkeypatch.setattr(encode, lack.before(journald.encode))
        put = to_stream._sender.put
        monkeypatch.setattr(to_stream._sender, "put", lack.before(put))
        lack.raised(2)
        to_journal.write({"MESSAGE": "lost"})
        to_stream.write("lost")
        assert lost.take() == 2
        to_journal.write({"MESSAGE": "kept"})
        to_stream.write("kept")
        assert receive(server)["MESSAGE"] == "kept"
        assert reader.readline() == b"kept\n"
        to_journal.close()
        to_stream.close()


@pytest.mark.parametrize("resource", THREADLESS, ids=str)
def test_the_thread_of_the_journal_that_died_is_started_again(
    resource: Resource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack, lost = Lack(Resource.MEMORY), Tally()
    with journal(tmp_path) as (path, server):
        writer = JournalWriter(path, dropped=lost.add)
        sender = writer._sender
        monkeypatch.setattr(sender, "_send_now", lambda _line: False)
        monkeypatch.setattr(writer, "_send", lack.before(writer._send))
        lack.raised(1)
        writer.write({"MESSAGE": "1"})
        assert sender._thread is not None
        sender._thread.join(REAL_SECONDS)
        assert not sender.is_running
        again = Lack(resource)
        monkeypatch.setattr(threading.Thread, "start", again.before(threading.Thread.start))
        again.raised(1)
        writer.write({"MESSAGE": "2"})
        assert not sender.is_running
        writer.write({"MESSAGE": "3"})
        assert [receive(server)["MESSAGE"] for _ in range(3)] == ["1", "2", "3"]
        writer.close()
    assert lost.take() == 0


class Exporter:
    """Takes spans, or meets a lack."""

    def __init__(self) -> None:
        self.taken = threading.Event()

    def export(self, _spans: object) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        self.taken.set()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize("where", ["export", "wait"])
def test_spans_are_sent_again_once_that_can_be_done(
    lack: Lack, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "wait":  # that takes nothing but memory
        lack = Lack(Resource.MEMORY)
    lines, lost, exporter = Lines(), list[tuple[DropReason, int]](), Exporter()
    lack.raised()
    if where == "export":
        monkeypatch.setattr(exporter, "export", lack.before(exporter.export))
    sender = SpanSender(
        type("Maker", (), {"make": staticmethod(str)}),  # type: ignore[arg-type]
        exporter,  # type: ignore[arg-type]
        log=lines.log,
        dropped=lambda reason, number: lost.append((reason, number)),
        delay_seconds=0.01,
    )
    if where == "wait":
        more = sender._sender._more
        monkeypatch.setattr(more, "wait_for", lack.before(more.wait_for))
    for _ in range(1000):
        sender.put("span")  # type: ignore[arg-type]
        if exporter.taken.wait(0.02):
            break
    assert exporter.taken.is_set()
    assert sender._sender.is_running
    sender.close()
    assert {reason for reason, number in lost if number} <= {DropReason.EXPORT_FAILED}
