"""The first thing a newcomer runs: from a clean copy of the tree to a completion, and back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

NOT_COPIED = (".git", ".venv", ".cache", ".env", "__pycache__", "*_cache", ".hypothesis")
START_SECONDS = 600
"""A guard against hanging; the first start installs and may download the model."""
STOP_SECONDS = 60


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in {"PORT", "PYTHON"}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the tree; the first test to use it installs."""
    copy = tmp_path_factory.mktemp("quickstart") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return copy


def run_once(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ops/quickstart.sh", "--once", *arguments],
        cwd=checkout,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@contextmanager
def running(checkout: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A simulated quickstart that is up, and what it printed until then."""
    with subprocess.Popen(
        ["ops/quickstart.sh", "--simulated"],
        cwd=checkout,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as quickstart:
        assert quickstart.stdout is not None
        said = []
        for line in quickstart.stdout:
            said.append(line)
            if line.startswith("Ctrl-C"):
                break
        else:
            pytest.fail("".join(said))
        try:
            yield quickstart, "".join(said)
        finally:
            quickstart.terminate()


def processes_in(folder: Path) -> dict[int, str]:
    """All processes that work in this folder: pid and command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(folder):
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile
    return found


def completion_in(output: str) -> str:
    match = re.search(r"^Completion: +(.*)$", output, re.MULTILINE)
    assert match, output
    return match[1]


def test_a_clean_checkout_gets_a_completion_from_a_real_model(checkout: Path) -> None:
    result = run_once(checkout)
    assert result.returncode == 0, (result.stdout, result.stderr)
    assert completion_in(result.stdout)
    assert "Answered by: primary" in result.stdout
    assert processes_in(checkout) == {}


def test_simulated_servers_give_a_completion_too(checkout: Path) -> None:
    result = run_once(checkout, "--simulated")
    assert result.returncode == 0, (result.stdout, result.stderr)
    assert completion_in(result.stdout)
    assert processes_in(checkout) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_quickstart_leaves_no_process_behind(
    checkout: Path, number: signal.Signals
) -> None:
    with running(checkout) as (quickstart, _):
        assert len(processes_in(checkout)) == 4  # itself, two servers, the daemon
        quickstart.send_signal(number)
        assert quickstart.wait(STOP_SECONDS) == 0
        assert processes_in(checkout) == {}


def test_a_killed_quickstart_takes_its_processes_with_it(checkout: Path) -> None:
    with running(checkout) as (quickstart, _):
        quickstart.kill()
        quickstart.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while left := processes_in(checkout):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def test_the_loss_of_the_primary_is_reported_and_outlived(checkout: Path) -> None:
    with running(checkout) as (quickstart, said):
        kill = re.search(r"^ +kill (\d+)$", said, re.MULTILINE)
        health = re.search(r"^ +health +(\S+)$", said, re.MULTILINE)
        assert kill
        assert health
        os.kill(int(kill[1]), signal.SIGKILL)
        assert quickstart.stdout is not None
        assert any("The primary has ended with status -9" in line for line in quickstart.stdout)
        with urllib.request.urlopen(health[1].replace("/health", "/live"), timeout=60) as live:
            assert live.status == 200
        look = re.search(r"^ +(\S+/ai-ticketctl --socket \S+) top$", said, re.MULTILINE)
        if look is not None:  # the folder is not too deep for a socket
            command = [*look[1].split(), "status", "--json"]
            deadline = time.monotonic() + START_SECONDS
            while json.loads(subprocess.check_output(command))["serving"]["role"] != "standby":
                assert time.monotonic() < deadline
                time.sleep(0.2)


def test_a_lost_daemon_ends_everything_with_its_log(checkout: Path) -> None:
    with running(checkout) as (quickstart, _):
        daemon = next(
            pid
            for pid, command in processes_in(checkout).items()
            if "ai-ticket-daemon --config" in command
        )
        os.kill(daemon, signal.SIGKILL)
        rest, _ = quickstart.communicate(timeout=STOP_SECONDS)
        assert quickstart.returncode == 1
        assert "The daemon has ended with status -9" in rest
        assert "daemon.log" in rest
        assert processes_in(checkout) == {}
