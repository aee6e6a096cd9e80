"""The journal's part of a support archive, by a journalctl of the test."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.ctl import bundle

if TYPE_CHECKING:
    from pathlib import Path

EVENT_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journalctl"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_lines_are_redacted_and_keep_their_ids(journalctl: Path) -> None:
    entry = {
        "MESSAGE": "event_ended password=hunter2secret to jo@example.org",
        "AI_TICKET_EVENT_ID": EVENT_ID,
        "AI_TICKET_TOKEN": "abc",
        "TRACE_ID": "4bf92f3577b34da6a3ce929d0e0e4736",
        "__REALTIME_TIMESTAMP": "1764108000000000",
        "_CMDLINE": "something with --secret",
        "PRIORITY": "6",
    }
    script(journalctl, f"echo {shlex.quote(json.dumps(entry))}; echo nonsense")
    [line], about = bundle.journal("ai-ticket")
    assert about == "the last lines of ai-ticket in the journal (1), redacted"
    assert line["AI_TICKET_EVENT_ID"] == EVENT_ID
    assert line["TRACE_ID"] == entry["TRACE_ID"]
    assert line["__REALTIME_TIMESTAMP"] == entry["__REALTIME_TIMESTAMP"]
    text = json.dumps(line)
    for secret in ("hunter2", "example.org", "abc", "--secret"):
        assert secret not in text


def test_it_asks_for_the_unit_bounded_and_without_debug_lines(journalctl: Path) -> None:
    script(journalctl, f'echo "$@" > {journalctl}.asked')
    _, about = bundle.journal("ai-ticket@2")
    asked = journalctl.with_name("journalctl.asked").read_text().split()
    assert {"--unit=ai-ticket@2", "--priority=info", "--lines=2000"} <= set(asked)
    assert about == "none: the journal has no lines of ai-ticket@2 that this user may read"


def test_a_flood_is_cut_to_its_end(journalctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "JOURNAL_BYTES", 1000)
    script(
        journalctl, """i=0; while [ $i -lt 200 ]; do echo '{"MESSAGE": "'$i'"}'; i=$((i+1)); done"""
    )
    lines, _ = bundle.journal("ai-ticket")
    assert lines[-1] == {"MESSAGE": "199"}
    assert 10 < len(lines) < 60


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'No journal files were opened' >&2; exit 1", "ended with 1: No journal files"),
        ("exec sleep 60", "timed out"),
    ],
)
def test_why_there_is_no_journal_is_told(
    journalctl: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.setattr(bundle, "JOURNAL_SECONDS", 0.5)
    script(journalctl, body)
    lines, about = bundle.journal("ai-ticket")
    assert lines == []
    assert about.startswith("none: ")
    assert said in about


def test_a_host_without_journalctl_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cannot be used here" in bundle.journal("ai-ticket")[1]
