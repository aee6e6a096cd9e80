"""Commands whose standard streams are closed, full, or read by somebody who has had enough."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

DAEMON, CTL = "ai_ticket_daemon", "ai_ticket_daemon.ctl.main"
OUTPUTS = ["--version", "--help", "--check-config", "--audit"]


def conf(folder: Path) -> str:
    path = folder / "ai-ticket.conf"
    path.write_text(
        'http.bind = ["127.0.0.1:0"]\nmetrics.bind = "127.0.0.1:0"\ntelemetry.traces = "none"\n'
        f'control.socket = ""\nstore.url = "sqlite:///{folder}/events.db"\n'
        '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:1"\n'
    )
    return str(path)


def run(
    module: str, *arguments: str, redirect: str, folder: Path, unbuffered: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell with ``redirect`` does."""
    command = f'exec "$@" {redirect}'
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["/bin/sh", "-c", command, "sh", sys.executable, "-m", module, *arguments],
        env=environ | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import apsw

    from ai_ticket_daemon.store.sqlite.schema import open_for_writing

    made = tmp_path_factory.mktemp("streams")
    connection = apsw.Connection(str(made / "events.db"))
    open_for_writing(connection)
    connection.close()
    return made


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("option", OUTPUTS)
def test_a_full_output_is_told_in_one_sentence(folder: Path, option: str, unbuffered: bool) -> None:
    ended = run(
        DAEMON, option, "--config", conf(folder), redirect=">/dev/full", folder=folder,
        unbuffered=unbuffered,
    )  # fmt: skip
    assert ended.stderr == (
        "ai-ticket-daemon: standard output cannot be written: No space left on device\n"
    )
    assert ended.returncode == 69


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("redirect", [">&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("option", OUTPUTS)
def test_what_a_closed_output_was_to_tell_is_no_success(
    folder: Path, option: str, redirect: str, unbuffered: bool
) -> None:
    ended = run(
        DAEMON, option, "--config", conf(folder), redirect=redirect, folder=folder,
        unbuffered=unbuffered,
    )  # fmt: skip
    told = "ai-ticket-daemon: standard output cannot be written: it is closed\n"
    assert ended.stderr == ("" if "2>" in redirect else told)
    assert ended.returncode == 69


@pytest.mark.parametrize("redirect", ["<&-", "2>&-", "<&- 2>&-", "2>/dev/full"])
@pytest.mark.parametrize("option", OUTPUTS)
def test_closed_streams_change_nothing_else(folder: Path, option: str, redirect: str) -> None:
    ended = run(DAEMON, option, "--config", conf(folder), redirect=redirect, folder=folder)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("redirect", ["2>/dev/full", ">/dev/full 2>/dev/full", "2>&-"])
def test_nobody_to_be_told_leaves_the_exit_code_as_it_is(folder: Path, redirect: str) -> None:
    assert run(DAEMON, "--config", "/nowhere", redirect=redirect, folder=folder).returncode == 78
    unreachable = ("--socket", "/nowhere", "status")
    assert run(CTL, *unreachable, redirect=redirect, folder=folder).returncode == 69


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("status", "--help")])
def test_the_operators_command_tells_of_a_full_output(
    folder: Path, arguments: tuple[str, ...]
) -> None:
    ended = run(CTL, *arguments, redirect=">/dev/full", folder=folder)
    assert ended.stderr == (
        "ai-ticketctl: standard output cannot be written: No space left on device\n"
    )
    assert ended.returncode == 1
    closed = run(CTL, *arguments, redirect=">&-", folder=folder)
    assert closed.stderr == "ai-ticketctl: standard output cannot be written: it is closed\n"
    assert closed.returncode == 1
    assert run(CTL, *arguments, redirect=">&- 2>&-", folder=folder).returncode == 1


@pytest.mark.parametrize("module", [DAEMON, CTL])
def test_a_reader_that_has_had_enough_ends_a_command_quietly(folder: Path, module: str) -> None:
    ended = run(module, "--help", redirect="| true", folder=folder, unbuffered=True)
    assert ended.stderr == ""


def test_an_error_of_opentelemetrys_variables_is_told_alike_by_check_and_start(
    folder: Path,
) -> None:
    said = set()
    for option in ([], ["--check-config"]):
        ended = subprocess.run(
            [sys.executable, "-m", DAEMON, "--config", conf(folder), *option],
            env={**os.environ, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 78
        said.add(ended.stderr)
    (sentence,) = said
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: has to be a whole number" in sentence
