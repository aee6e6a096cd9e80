"""Asks ``/live`` again and again until its standard input ends: live_probe.py HOST PORT [PID].

A process of its own, since the one that attacks is busy. Prints how many times it asked, the
slowest answer and the middle one in seconds, how many asks got no 200, and why the last of them.
With the process that answers, ``slowest_served`` leaves out the time that this process and that one
were ready to run and got no processor (https://docs.kernel.org/scheduler/sched-stats.html).
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

PAUSE_SECONDS = 0.2
"""Five times a second: the meter in the daemon looks at its loop a hundred times."""
GIVE_UP_SECONDS = 15.0
ASK = b"GET /live HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n"


def ask(host: str, port: int) -> str:
    """Ask once, over a new connection; return what is wrong, or nothing."""
    try:
        with socket.create_connection((host, port), timeout=GIVE_UP_SECONDS) as connection:
            connection.sendall(ASK)
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
    except OSError as error:
        return str(error) or repr(error)
    return "" if answer.startswith(b"HTTP/1.1 200 ") else repr(answer[:200])


def waited(pids: list[str]) -> float:
    """Return the seconds that the main threads of ``pids`` waited for a processor so far."""
    told = []
    for pid in pids:
        with suppress(OSError):  # it may have ended, which others tell
            told.append(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text())
    return sum(int(each.split()[1]) for each in told) / 1e9


def main() -> None:
    host, port, *server = sys.argv[1:]
    pids = [*server, str(os.getpid())] if server else []
    took: list[float] = []
    served: list[float] = []
    failed, why = 0, ""
    over = False
    while not over:
        waited_before, began = waited(pids), time.monotonic()
        wrong = ask(host, int(port))
        took.append(time.monotonic() - began)
        served.append(took[-1] - (waited(pids) - waited_before))
        if wrong:
            failed, why = failed + 1, wrong
        over = bool(select.select([sys.stdin], [], [], PAUSE_SECONDS)[0])
    told = {"asked": len(took), "slowest": max(took), "median": statistics.median(took)}
    print(json.dumps({**told, "slowest_served": max(served), "failed": failed, "why": why}))


main()
