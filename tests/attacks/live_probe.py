"""Asks ``/live`` again and again until its standard input ends: live_probe.py HOST PORT.

A process of its own, since the one that attacks is busy. Prints how many times it asked, the
slowest answer in seconds, and how many asks got no 200 and why the last of them did not.
"""

from __future__ import annotations

import json
import select
import socket
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
    asked, slowest, failed, why = 0, 0.0, 0, ""
    over = False
    while not over:
        began = time.monotonic()
        wrong = ask(host, port)
        asked, slowest = asked + 1, max(slowest, time.monotonic() - began)
        if wrong:
            failed, why = failed + 1, wrong
        over = bool(select.select([sys.stdin], [], [], PAUSE_SECONDS)[0])
    print(json.dumps({"asked": asked, "slowest": slowest, "failed": failed, "why": why}))


main()
