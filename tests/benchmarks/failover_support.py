"""Two servers behind the daemon or behind HAProxy, and clients that count what they get."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKENS = 8


def backend(*, generation_seconds: float, name: str) -> list[str]:
    """Return the command of a simulated server that takes so long for eight tokens."""
    return [
        sys.executable, "-m", "ai_ticket_daemon.testing.kobold",
        "--port", "0", "--control-port", "0", "--model", f"koboldcpp/{name}",
        "--prompt-seconds", str(generation_seconds / 2),
        "--tokens-per-second", str(TOKENS / (generation_seconds / 2)),
    ]  # fmt: skip


def ports(line: str) -> tuple[int, int]:
    """Return the port and the control port from the line with which a server says it is ready."""
    serving, control = re.findall(r":(\d+)", line)
    return int(serving), int(control)


def daemon(folder: Path, servers: Iterable[tuple[str, int]]) -> list[str]:
    """Return the command of the daemon with these servers, the first one as primary.

    Each has a store of its own, or it would go on with what the last one left.
    """
    folder = Path(tempfile.mkdtemp(dir=folder))
    conf = folder / "ai-ticket.conf"
    sections = [
        f"""
        [[backends.server]]
        name = "{name}"
        url = "http://127.0.0.1:{port}"
        role = "{"standby" if index else "primary"}"
        model = "koboldcpp/{name}"
        """
        for index, (name, port) in enumerate(servers)
    ]
    conf.write_text(
        f"""
        store.url = "sqlite:///{folder}/events.db"
        http.bind = ["127.0.0.1:0"]
        metrics.bind = "127.0.0.1:0"
        telemetry.traces = "none"
        rate_limit.requests = 0
        """
        + "".join(sections)
    )
    return [sys.executable, "-m", "ai_ticket_daemon", "--config", str(conf)]


def haproxy(folder: Path, primary: int, standby: int, *, queues: bool) -> tuple[list[str], int]:
    """Return the command of HAProxy before two servers, and its port.

    With ``queues`` it sends one request at a time to a server, as the daemon does, and keeps the
    others; else KoboldCPP keeps a few and refuses the others.
    """
    limit = "maxconn 1" if queues else ""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = folder / "haproxy.cfg"
    conf.write_text(
        f"""
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue 60s
    retries 3
    option redispatch
    default-server check inter 1s fall 2 {limit}
listen kobold
    bind 127.0.0.1:{port}
    option httpchk GET /api/extra/perf
    server primary 127.0.0.1:{primary}
    server standby 127.0.0.1:{standby} backup
"""
    )
    return [program, "-db", "-f", str(conf)], port


@dataclass(slots=True)
class Tally:
    """What clients got: per completion when, by whom and which id; and what was lost, how."""

    completions: list[tuple[float, str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def doubled(self) -> int:
        """Events that more than one client, or one client twice, got an outcome of."""
        ids = [event_id for _, _, event_id in self.completions if event_id]
        return len(ids) - len(set(ids))

    @property
    def out_of_order(self) -> int:
        """Completions that came after one of an event accepted in a later millisecond.

        Ids begin with the time; those of one millisecond are in no order.
        """
        times = [event_id[:13] for _, _, event_id in self.completions]
        return sum(later < earlier for earlier, later in pairwise(times))

    def first_by(self, name: str, after: float) -> float:
        """When the first completion by a server came, after a time; infinite if none came."""
        times = (at for at, by, _ in self.completions if by == name and at >= after)
        return min(times, default=math.inf)


async def call(port: int, path: str, body: object | None = None) -> tuple[int, dict[str, Any]]:
    """Send one request on a connection of its own; return the status and the JSON answer.

    Raises:
        OSError: the connection was refused or broke.
        ConnectionError: it ended before the answer had.
    """
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        content = b"" if body is None else json.dumps(body).encode()
        method = b"GET" if body is None else b"POST"
        try:
            await stream.send_all(
                b"%s %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n%s"
                % (method, path.encode(), len(content), content)
            )
            data = b""
            while chunk := await stream.receive_some():
                data += chunk
                if _is_whole(data):
                    break
        except trio.BrokenResourceError as error:
            raise ConnectionError("the connection broke") from error
    head, separator, text = data.partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionError("the connection ended without an answer")
    status = int(head.split()[1])
    try:
        return status, json.loads(text)
    except ValueError:
        return status, {}


def _is_whole(data: bytes) -> bool:
    head, separator, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(separator) and length is not None and len(body) >= int(length[1])


async def event_client(port: int, tally: Tally) -> None:
    """Send events to the daemon, one after the other, until cancelled."""
    while True:
        body = {"content": "Which queue does this ticket belong to?", "max_tokens": TOKENS}
        await _count(port, "/event", body, tally)


async def chat_client(port: int, tally: Tally, *, retry_seconds: float | None = None) -> None:
    """Send chats as a client of KoboldCPP does, until cancelled.

    With ``retry_seconds`` KoboldCPP's ``503`` is no loss: the client waits and sends it again.
    """
    message = {"role": "user", "content": "Which queue does this ticket belong to?"}
    body = {"messages": [message], "max_tokens": TOKENS}
    while True:
        await _count(port, "/v1/chat/completions", body, tally, retry_seconds=retry_seconds)


async def _count(
    port: int, path: str, body: object, tally: Tally, *, retry_seconds: float | None = None
) -> None:
    try:
        status, answer = await call(port, path, body)
    except OSError as error:
        tally.lost.append(repr(error))
        await trio.sleep(0.1)
        return
    if status == 503 and retry_seconds is not None and "detail" in answer:
        tally.refused += 1
        await trio.sleep(retry_seconds)
    elif status != 200:
        tally.lost.append(f"{status} {answer.get('error', '')}")
        await trio.sleep(0.1)
    else:
        by = answer.get("backend") or str(answer.get("model")).rpartition("/")[2]
        tally.completions.append((trio.current_time(), by, answer.get("event_id", "")))
