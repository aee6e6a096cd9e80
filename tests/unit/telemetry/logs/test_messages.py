from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.telemetry.logs.messages import MESSAGES, catalog
from tests.support.project import ROOT
from tests.support.system.debian_packages import need_packages

if TYPE_CHECKING:
    from pathlib import Path

REQUIRED = {
    "started", "stopping", "reload_applied", "reload_refused", "failover", "failback",
    "actor_restarted", "queue_full", "store_failed",
}  # fmt: skip


def test_the_catalog_that_ships_is_the_one_in_the_code() -> None:
    assert (ROOT / "systemd/ai-ticket.catalog").read_text() == catalog()


def test_every_line_that_was_promised_an_id_has_one_of_its_own() -> None:
    assert set(MESSAGES) >= REQUIRED
    ids = [message.message_id for message in MESSAGES.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", message_id) for message_id in ids)


def test_every_line_with_an_id_is_in_the_documents() -> None:
    page = (ROOT / "docs/logs.md").read_text()
    for event, message in MESSAGES.items():
        assert f"| `{event}` | `{message.message_id}` |" in page
        row = rf"^\| `{event}` \| (debug|info|warning|error|critical) \|"
        assert re.search(row, page, re.MULTILINE), event


@pytest.mark.system
def test_systemd_accepts_the_catalog_and_shows_cause_and_remedy(tmp_path: Path) -> None:
    need_packages("systemd")
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "systemd/ai-ticket.catalog", folder)
    journalctl = ["journalctl", f"--root={tmp_path}"]
    made = subprocess.run(
        [*journalctl, "--update-catalog"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (made.returncode, made.stderr) == (0, "")
    for message in MESSAGES.values():
        shown = subprocess.run(
            [*journalctl, "--dump-catalog", message.message_id],
            capture_output=True, text=True, timeout=30, check=True,
        ).stdout  # fmt: skip
        assert f"Subject: {message.subject}" in shown
        words = " ".join(shown.split())
        assert " ".join(message.cause.split()) in words
        assert " ".join(message.remedy.split()) in words
