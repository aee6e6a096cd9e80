"""What journald is told when an operator asks for a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.ctl.audit_log import asked
from ai_ticket_daemon.testing.journal import journal, receive

if TYPE_CHECKING:
    from pathlib import Path


def test_journald_is_told_what_is_asked_for(tmp_path: Path) -> None:
    with journal(tmp_path) as (path, server):
        asked("failover", {"name": "standby"}, journal=path)
        line = receive(server)
    assert line["AI_TICKET_LOG"] == "control_asked"
    assert line["AI_TICKET_OPERATION"] == "failover"
    assert line["AI_TICKET_ARGUMENTS"] == '{"name": "standby"}'
    assert line["MESSAGE"] == 'control_asked operation=failover arguments={"name": "standby"}'


def test_without_a_journald_nothing_fails_and_nothing_waits(tmp_path: Path) -> None:
    asked("auto", {}, journal=str(tmp_path / "nobody"))
    with journal(tmp_path) as (path, _):
        for _ in range(1000):  # more than a socket holds that nobody reads
            asked("auto", {}, journal=path)
