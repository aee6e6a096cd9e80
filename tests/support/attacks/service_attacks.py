"""What is done to the service: service_attacks.py metrics|batches|waiting|nested|model.

Runs in the container, on the daemon's own Python, and prints what it did.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

HTTP = ("127.0.0.1", 5000)
METRICS = ("127.0.0.1", 9464)
SECONDS = 30.0
HOLD_SECONDS = 3.0


def connect(address: tuple[str, int] = HTTP) -> socket.socket:
    return socket.create_connection(address, timeout=SECONDS)


def head(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: a", "content-type: application/json",
             f"content-length: {length}", *more]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def metrics() -> str:
    """Hold silent connections to the metrics page: more than the service may have tasks."""
    held = []
    with suppress(OSError):
        held += [connect(METRICS) for _ in range(400)]
    time.sleep(HOLD_SECONDS)
    # The store needs its thread, and the prober its descriptors, while these are there.
    statuses = [post(b'{"content": "meanwhile", "max_tokens": 2}') for _ in range(5)]
    return f"{len(held)} held, events {statuses}"


def status_of(client: socket.socket) -> int:
    """Return the status of the answer; 0 if there is none."""
    found = client.recv(65_536).split(b" ", 2)
    return int(found[1]) if len(found) > 1 else 0


def post(body: bytes, path: str = "/event", *more: str) -> int:
    """Send one body and return the status; 0 if there was none."""
    try:
        with connect() as client:
            client.sendall(head(path, len(body), "connection: close", *more) + body)
            return status_of(client)
    except OSError:
        return 0


def at_once(count: int, body: bytes, path: str) -> list[int]:
    """Send the same body over many connections, so that all of them end together."""
    statuses: list[int] = []
    ready = threading.Barrier(count)

    def one() -> None:
        with suppress(OSError), connect() as client:
            client.sendall(head(path, len(body), "connection: close") + body[:-1])
            ready.wait(SECONDS)
            client.sendall(body[-1:])
            statuses.append(status_of(client))

    threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return statuses


def batches() -> str:
    """Send the largest batches, of the most objects, that all end at the same moment."""
    item = b'{"a":[]},'
    body = b"[" + item * (16 * 2**20 // len(item) - 1) + b'{"a":[]}]'
    return f"{at_once(14, body, '/events')}"


def waiting() -> str:
    """Have many clients send a body of nearly 16 MiB, and never its end."""
    piece = b" " * 2**20
    held: list[socket.socket] = []

    def one() -> None:
        with suppress(OSError):
            client = connect()
            held.append(client)
            client.settimeout(HOLD_SECONDS)
            client.sendall(head("/events", 16 * 2**20))
            for _ in range(15):
                client.sendall(piece)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    time.sleep(HOLD_SECONDS)
    return f"{len(held)} held"


def nested() -> str:
    """Send what nests deeper than the interpreter likes, often enough to use up all restarts."""
    deep = b"[" * 900 + b"]" * 900
    kinds = (b"[" * 900, deep, b'{"content": ' + deep + b"}", b'{"a":' * 900,
             b'{"content": "a", "metadata": {"a": ' + deep + b"}}")  # fmt: skip
    paths = ("/event", "/events")
    return f"{[post(body, path) for _ in range(4) for body in kinds for path in paths]}"


def model() -> str:
    """Be two servers, of either kind, whose model has half a surrogate in its name."""

    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"result": "m\udcff", "value": 4096, "idle": 1, "queue": 0,
                               "total_gens": 1, "uptime": 1.5, "last_process": 0.1,
                               "last_eval": 0.1, "last_token_count": 1, "stop_reason": 1,
                               "last_seed": 1, "data": [{"id": "m\udcff"}]}).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for port in (5003, 5004):
        server = HTTPServer(("127.0.0.1", port), Odd)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    time.sleep(2 * HOLD_SECONDS)
    return "served"


ATTACKS = {function.__name__: function for function in (metrics, batches, waiting, nested, model)}
print(ATTACKS[sys.argv[1]]())
