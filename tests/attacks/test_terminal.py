"""A completion full of escape sequences comes to an operator's terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings
from tests.support.attacks.attacked_daemon import attacked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.attacks.attacked_daemon import AttackedDaemon

pytestmark = pytest.mark.system

NASTY = "\x1b]0;owned\x07\x1b[2J hello \x9b31m \u202eolleh\u202c \x08\x08 end"
ACTING = {"\x1b", "\x07", "\x9b", "\u202e", "\u202c", "\x08"}
ECHO = KoboldSettings(reply="echo").scaled(0.02)
PATIENCE_SECONDS = 60


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[AttackedDaemon]:
    async with attacked(tmp_path, kobold=ECHO) as daemon:
        yield daemon


def run(daemon: AttackedDaemon, *arguments: str, on_terminal: bool) -> tuple[int, str]:
    """Run ``ai-ticketctl``; return its exit code and all that it wrote."""
    command = [sys.executable, "-m", "ai_ticket_daemon.ctl.main", *arguments]
    command += ["--socket", str(daemon.control)]
    if not on_terminal:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
        return done.returncode, done.stdout.decode()
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 65536):
                written += piece
        except OSError:
            pass  # The terminal has nobody left on its other end.
        return process.wait(PATIENCE_SECONDS), written.decode()
    finally:
        os.close(ours)


async def ctl(daemon: AttackedDaemon, *arguments: str, on_terminal: bool) -> tuple[int, str]:
    return await trio.to_thread.run_sync(partial(run, daemon, *arguments, on_terminal=on_terminal))


@pytest.mark.parametrize("options", [(), ("--follow",)], ids=["whole", "follow"])
async def test_a_terminal_is_shown_what_would_act_on_it(
    daemon: AttackedDaemon, options: tuple[str, ...]
) -> None:
    code, written = await ctl(daemon, "submit", *options, NASTY, on_terminal=True)
    assert code == 0, written
    assert not ACTING & set(written), written
    assert "\\x1b]0;owned\\x07" in written
    assert "hello" in written


async def test_a_pipe_gets_the_completion_as_it_is(daemon: AttackedDaemon) -> None:
    code, written = await ctl(daemon, "submit", NASTY, on_terminal=False)
    assert code == 0
    assert "\x1b]0;owned\x07" in written
    assert written == (await ctl(daemon, "submit", "--follow", NASTY, on_terminal=False))[1]


async def test_json_is_escaped_and_whole_wherever_it_goes(daemon: AttackedDaemon) -> None:
    _, raw = await ctl(daemon, "submit", NASTY, on_terminal=False)
    for on_terminal in (False, True):
        code, written = await ctl(daemon, "submit", "--json", NASTY, on_terminal=on_terminal)
        assert code == 0
        assert not ACTING & set(written)
        assert json.loads(written)["completion"] == raw.removesuffix("\n")
