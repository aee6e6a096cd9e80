from __future__ import annotations

import io
import json
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.log import LogConfig, LogFormat
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Attempt, Failed, Succeeded, Usage
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.telemetry.capture import (
    MAILBOX_EVENTS,
    MOST_REFUSED_BYTES,
    Capture,
    Refused,
)
from ai_ticket_daemon.telemetry.logs.logs import Logs

if TYPE_CHECKING:
    from pathlib import Path

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FAILED = Failed(
    ErrorCode.API_SERVER_ERROR,
    "primary answered 500",
    {"backend": "primary"},
    attempts=(Attempt("primary", 1.0, 2.0, ErrorCode.API_SERVER_ERROR, "answered 500"),),
)
SUCCEEDED = Succeeded("text", "primary", "stop", Usage(1, 1), 1.0)


def event(number: int = 0, content: str = "My password: hunter2, the printer burns.") -> Event:
    return Event(
        f"event-{number}",
        (Message(Role.USER, content),),
        Sampling(),
        submitted_at=0.0,
        deadline_at=300.0,
        metadata={"customer_token": "t0ps3cret", "ticket": 7},
        trace_context={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
    )


class Captures:
    def __init__(self, folder: Path, newest: int = 10) -> None:
        self.settings = LogConfig(capture_payloads=newest, capture_directory=folder / "captures")
        self.stream = io.StringIO()
        logs = Logs(log_format=LogFormat.JSON, stream=self.stream)
        self.capture = Capture(lambda: self.settings, logs.logger(), clock=Clock())

    @property
    def files(self) -> list[Path]:
        return sorted(self.settings.capture_directory.glob("*"))

    async def ended(self, event: Event, state: EventState, outcome: Failed | Succeeded) -> None:
        """Tell of an event, and have it written."""
        self.capture.ended(event, state, outcome)
        await self.written()

    async def refused(self, payload: object) -> None:
        """Tell of a payload that was refused, and have it written."""
        details = {"field": "max_tokens"}
        code = ErrorCode.INVALID_PARAMETER
        self.capture.refused(Refused(TRACE, "/event", code, "Too many.", details, payload))
        await self.written()

    async def written(self) -> None:
        """Run the actor until it waits again."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.capture.run)
            with trio.fail_after(30):
                while self.capture._receive.statistics().tasks_waiting_receive == 0:  # noqa: ASYNC110
                    await trio.sleep(0.001)  # it writes, in a thread
            nursery.cancel_scope.cancel()


async def test_a_failing_payload_is_kept_redacted_and_for_its_owner_only(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    await captures.ended(event(), EventState.FAILED, FAILED)
    (file,) = captures.files
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.name.endswith("-event-0.json")
    text = file.read_text()
    kept = json.loads(text)
    assert (kept["event_id"], kept["trace_id"]) == ("event-0", TRACE)
    assert (kept["state"], kept["error"]) == ("failed", "api_server_error")
    assert kept["attempts"][0]["backend"] == "primary"
    assert kept["messages"][0]["content"].endswith("the printer burns.")
    assert kept["metadata"] == {"customer_token": "[redacted secret]", "ticket": 7}
    assert "hunter2" not in text
    assert "t0ps3cret" not in text


async def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    captures = Captures(tmp_path, newest=3)
    for number in range(5):
        await captures.ended(event(number), EventState.EXPIRED, FAILED)
    assert [file.stem.rpartition("-")[2] for file in captures.files] == ["2", "3", "4"]


async def test_an_operator_overrides_how_many_are_kept_and_the_file_stays_as_it_is(
    tmp_path: Path,
) -> None:
    captures = Captures(tmp_path, newest=0)
    config = Config(log=captures.settings)
    await captures.ended(event(0), EventState.FAILED, FAILED)
    captures.capture.override = 2
    for number in range(1, 5):
        await captures.ended(event(number), EventState.FAILED, FAILED)
    assert captures.capture.payloads == 2
    assert captures.capture.in_effect(config).log.capture_payloads == 2
    assert [file.stem.rpartition("-")[2] for file in captures.files] == ["3", "4"]
    captures.capture.override = None
    await captures.ended(event(5), EventState.FAILED, FAILED)
    assert (captures.capture.payloads, len(captures.files)) == (0, 2)
    assert captures.capture.in_effect(config) == config


async def test_what_did_not_fail_is_not_kept_and_off_means_off(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    await captures.ended(event(), EventState.SUCCEEDED, SUCCEEDED)
    await captures.ended(event(), EventState.CANCELLED, FAILED)
    captures.settings = replace(captures.settings, capture_payloads=0)
    await captures.ended(event(), EventState.FAILED, FAILED)
    assert captures.files == []


async def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    captures = Captures(tmp_path)
    captures.settings.capture_directory.write_text("a file stands in the way")
    for _ in range(3):
        await captures.ended(event(), EventState.FAILED, FAILED)
    assert captures.stream.getvalue().count("capture_failed") == 1
    captures.settings.capture_directory.unlink()
    await captures.ended(event(), EventState.FAILED, FAILED)
    assert len(captures.files) == 1


async def test_a_burst_of_failures_is_a_sample_and_holds_nobody_up(tmp_path: Path) -> None:
    captures = Captures(tmp_path, newest=1000)
    for number in range(500):
        captures.capture.ended(event(number), EventState.FAILED, FAILED)
    await captures.ended(event(500), EventState.FAILED, FAILED)
    assert len(captures.files) == MAILBOX_EVENTS


@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        (b'{"password": "hunter2", "content": "hi"}',
         {"password": "[redacted secret]", "content": "hi"}),
        ({"password": "hunter2", "content": "hi"},
         {"password": "[redacted secret]", "content": "hi"}),
        (b'{"content": "no end, password: hunter2', '{"content": "no end, [redacted secret]'),
        (b"\xff\x00", "\ufffd\x00"),
        (None, None),
    ],
    ids=["body", "item", "no JSON", "no text", "nothing"],
)  # fmt: skip
async def test_what_was_refused_is_kept_redacted_and_for_its_owner_only(
    payload: object, kept: object, tmp_path: Path
) -> None:
    captures = Captures(tmp_path)
    await captures.refused(payload)
    (file,) = captures.files
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.name.endswith(f"-refused-{TRACE}.json")
    found = json.loads(file.read_text())
    assert (found["payload"], found["error"]) == (kept, "invalid_parameter")
    assert (found["details"], found["route"]) == ({"field": "max_tokens"}, "/event")
    assert "hunter2" not in file.read_text()


@pytest.mark.parametrize("as_bytes", [True, False])
async def test_of_a_long_refused_payload_the_beginning_is_kept(
    as_bytes: bool, tmp_path: Path
) -> None:
    captures = Captures(tmp_path)
    long = {"content": "word " * MOST_REFUSED_BYTES}
    await captures.refused(json.dumps(long).encode() if as_bytes else long)
    (file,) = captures.files
    found = json.loads(file.read_text())
    assert len(found["payload"]) == MOST_REFUSED_BYTES
    assert found["bytes"] == len(json.dumps(long))


async def test_what_is_refused_does_not_push_out_what_failed(tmp_path: Path) -> None:
    captures = Captures(tmp_path, newest=2)
    await captures.ended(event(1), EventState.FAILED, FAILED)
    for number in range(4):
        await captures.refused({"n": number})
    await captures.ended(event(2), EventState.FAILED, FAILED)
    names = [file.name for file in captures.files]
    assert sum("refused" in name for name in names) == 2
    assert sum("event-" in name for name in names) == 2
    captures.settings = replace(captures.settings, capture_payloads=0)
    await captures.refused({"n": 5})
    assert len(captures.files) == 4


@pytest.mark.parametrize(
    "payload", [b"[" * 900, b"[" * 900 + b"]" * 900, b'{"a":' * 60_000, b"[[],[]," * 9000]
)
async def test_what_nests_without_end_is_kept_as_text_and_costs_the_actor_nothing(
    tmp_path: Path, payload: bytes
) -> None:
    captures = Captures(tmp_path)
    for _ in range(6):
        await captures.refused(payload)
    assert len(captures.files) == 6
    assert json.loads(captures.files[0].read_text())["payload"].startswith(payload[:9].decode())
    assert captures.stream.getvalue() == ""


async def test_a_payload_that_cannot_be_written_down_costs_itself_and_no_more(
    tmp_path: Path,
) -> None:
    captures = Captures(tmp_path)
    for _ in range(10):
        await captures.refused({"an object of no kind JSON knows": object()})
    await captures.refused(b"good")
    assert len(captures.files) == 1
    assert captures.stream.getvalue().count("observer_failed") == 1
