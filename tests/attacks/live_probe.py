"""Asks ``/live`` again and again until its standard input ends: live_probe.py HOST PORT.

A process of its own, since the one that attacks is busy. Prints how many times it asked, the
slowest answer and the middle one in seconds, how many asks got no 200, and why the last of them.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import sys
import time

PAUSE_SECONDS = 0.05
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


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    took: list[float] = []
    failed, why = 0, ""
    over = False
    while not over:
        began = time.monotonic()
        wrong = ask(host, port)
        took.append(time.monotonic() - began)
        if wrong:
            failed, why = failed + 1, wrong
        over = bool(select.select([sys.stdin], [], [], PAUSE_SECONDS)[0])
    told = {"asked": len(took), "slowest": max(took), "median": statistics.median(took)}
    print(json.dumps({**told, "failed": failed, "why": why}))


main()
