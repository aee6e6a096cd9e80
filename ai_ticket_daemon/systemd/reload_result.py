"""The result of a reload, and the command that asks for a reload and waits for it.

A signal carries no answer. The daemon therefore leaves the result in a file of its runtime
directory, and ``ai-ticket-daemon --reload PID`` (the unit's ``ExecReload=``) reads it from there,
so that ``systemctl reload`` fails when the reload was refused.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "reload.json"
WAIT_SECONDS = 30.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What became of the last reload.

    Args:
        pid: the daemon's.
        reloads: how many there have been; 0 right after the start.
        problems: why it was refused, a sentence each; empty if it was applied.
    """

    pid: int
    reloads: int
    problems: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Replace the file at ``path`` at once, so that nobody reads half of it.

        Raises:
            OSError: it cannot be written.
        """
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(path)


def result_path(environ: Mapping[str, str]) -> Path | None:
    """Return where the result stands: in systemd's ``RuntimeDirectory=``; None without one."""
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(directory) / FILE_NAME if directory else None


def read_result(path: Path) -> ReloadResult | None:
    """Return the result at ``path``; None if there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return ReloadResult(told["pid"], told["reloads"], tuple(told["problems"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def reload_and_wait(pid: int, path: Path, wait_seconds: float = WAIT_SECONDS) -> list[str]:
    """Have the daemon ``pid`` reload, and return why it refused to: nothing if it did not."""
    before = read_result(path)
    if before is None or before.pid != pid:
        return [
            f"{path} holds no reload result of the process {pid}; is it this daemon, and is it up?"
        ]
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        return [f"cannot signal the process {pid}: {error.strerror}"]
    give_up_at = time.monotonic() + wait_seconds
    while time.monotonic() < give_up_at:
        result = read_result(path)
        if result is not None and result.pid == pid and result.reloads > before.reloads:
            return list(result.problems)
        time.sleep(_LOOK_SECONDS)
    return [f"the process {pid} has not answered within {wait_seconds:g} s"]


def main(pid: int, environ: Mapping[str, str]) -> int:
    """Do what ``--reload`` says; return 0 if the reload was applied, else 1."""
    path = result_path(environ)
    if path is None:
        problems = ["RUNTIME_DIRECTORY is not set; `systemctl reload` sets it"]
    else:
        problems = reload_and_wait(pid, path)
    for problem in problems:
        sys.stderr.write(f"reload refused: {visible(problem)}\n")
    return 1 if problems else 0
