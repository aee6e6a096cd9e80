"""How a process of a test ended, in words: for the message of the test that did not expect it."""

from __future__ import annotations

import signal

LAST_LINES = 20
LINE_CHARACTERS = 2000


def how_it_ended(code: int | None, told: str) -> str:
    """Say how a daemon has ended, and the last lines it wrote.

    Args:
        code: as ``returncode`` of a process has it: negative for a signal, None while it runs.
        told: what it wrote to its standard error, or to its log.
    """
    if code is None:
        how = "the daemon runs on"
    elif code < 0:
        how = f"the daemon was ended by {_name(-code)}, which it does not send to itself"
        if -code == signal.SIGABRT:
            how = "the daemon was ended by SIGABRT: its watchdog, or somebody else's signal"
    else:
        how = f"the daemon ended by itself with exit code {code}"
    last = [line[:LINE_CHARACTERS] for line in told.splitlines()[-LAST_LINES:]]
    return "\n".join([f"{how}; its last lines:", *(last or ["(it wrote none)"])])


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
