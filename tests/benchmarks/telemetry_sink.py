"""A collector and a journald, as a process of its own: takes all and keeps nothing.

telemetry_sink.py JOURNAL_SOCKET [PORT]
"""

from __future__ import annotations

import socket
import sys

from ai_ticket_daemon.testing.otlp import http_collector

port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
with (
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
    http_collector(port=port) as collector,
):
    journal.bind(sys.argv[1])
    collector.keep = False
    print(f"ready on {collector.endpoint}", flush=True)
    lines = 0
    while True:
        journal.recv(2**18)
        lines += 1
        if lines % 1000 == 0:
            print(f"{lines} lines, {collector.count} spans", flush=True)
