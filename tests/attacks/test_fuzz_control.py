"""Mutated requests at the control socket and the view socket of a whole daemon.

Operators' scripts err, too, and whoever may only look may try what else there is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.control import ControlConfig
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.attacks.fuzzing import cases, mutate, short
from tests.support.attacks.socket_client import exchange

if TYPE_CHECKING:
    import random
    from pathlib import Path

__all__ = ["short"]

pytestmark = pytest.mark.system

CASES_OF_A_DAEMON = 2000
STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)
LOOKS = (
    b"status", b"backends", b"events?state=queued&limit=5&below=z", b"event?event_id=a",
    b"why?event_id=01a2208d-b7a7-7d22-9bca-151d3b8ee9ca", b"config", b"top", b"tasks",
    b"reload-plan", b"history?seconds=60",
    b"events?older_seconds=1e9&backend=primary&error=timeout",
)  # fmt: skip
CHANGES = (
    (b"log-level", b'{"level": "info"}'),
    (b"capture", b'{"count": 2}'),
    (b"failover", b'{"name": "primary"}'),
    (b"failback", b"{}"),
    (b"auto", b""),
    (b"pause", b"{}"),
    (b"unpause", b"{}"),
    (b"retry", b'{"event_id": "a"}'),
    (b"cancel", b'{"event_id": "01a2208d-b7a7-7d22-9bca-151d3b8ee9ca"}'),
    (b"bulk", b'{"action": "cancel", "states": ["queued"], "limit": 3}'),
    (b"sever", b'{"name": "primary", "seconds": 1}'),
    (b"mend", b"{}"),
)
WORDS = (
    b"{", b"}", b"[" * 500, b'"', b":", b"null", b"-1", b"1e999", b"9" * 400, b"\\ud800", b"\xff",
    b"\x00", b"%ff", b"%00", b"&", b"=", b"?", b"/", b"..", b"below=" + b"9" * 500, b"limit=-1",
    b"limit=99999999999999999999", b'"event_id": ', b'"name": ["a"]', b"state=x", b"\r\n", b"\n",
    b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"seconds=nan", b"seconds=inf",
)  # fmt: skip


def make(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        request = b"GET /control/%s HTTP/1.1\r\nhost: a\r\n\r\n" % chance.choice(LOOKS)
        return mutate(chance, request, WORDS)
    name, arguments = chance.choice(CHANGES)
    body = mutate(chance, arguments, WORDS)
    head = b"POST /control/%s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
    request = head % (name, len(body)) + body
    return request if chance.random() < 0.8 else mutate(chance, request, WORDS)


async def test_mutated_requests_of_operators_are_never_a_fault(short: Path) -> None:
    seen: Counter[bytes] = Counter()
    every = cases("control")
    socket = short / "c.sock"
    async with open_simulated_kobold(KoboldSettings().scaled(0.05)) as simulated:
        config = config_for(ServerConfig("primary", simulated.url))
        config = replace(config, control=ControlConfig(socket=socket))
        while chunk := [case for case, _ in zip(every, range(CASES_OF_A_DAEMON), strict=False)]:
            async with open_daemon(config) as daemon:
                for case in chunk:
                    case.data = data = make(case.chance)
                    with case.guarded():
                        answer = await exchange(socket, data)
                        seen.update(STATUS.findall(answer))
                        assert not seen[b"500"], answer[:500]
                for event in ("control_crashed", "handler_crashed", "connection_crashed",
                              "actor_restarted"):  # fmt: skip
                    assert daemon.log(event) == []
                status = await exchange(socket, b"GET /control/status HTTP/1.1\r\nhost: a\r\n\r\n")
                assert STATUS.findall(status) == [b"200"]
    print(dict(seen))
    assert seen.total() < 100 or {b"200", b"400", b"404"} <= seen.keys()


HEAD = (
    b"POST /%s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
EVENTS = (
    HEAD % (b"event", 16) + b'{"content": "x"}',
    HEAD % (b"events", 18) + b'[{"content": "x"}]',
    b"DELETE /event/01a2208d-b7a7-7d22-9bca-151d3b8ee9ca HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n",
)


def make_of_a_viewer(chance: random.Random) -> bytes:
    if chance.random() < 0.6:
        return make(chance)
    request = chance.choice(EVENTS)
    return request if chance.random() < 0.2 else mutate(chance, request, WORDS)


async def test_mutated_requests_of_those_who_look_change_nothing(short: Path) -> None:
    seen: Counter[bytes] = Counter()
    every = cases("view", 0.2)  # what it is made of is fuzzed above
    socket, view = short / "c.sock", short / "v.sock"
    ask = b"GET /control/status HTTP/1.1\r\nhost: a\r\n\r\n"
    async with open_simulated_kobold(KoboldSettings().scaled(0.05)) as simulated:
        config = config_for(ServerConfig("primary", simulated.url))
        config = replace(config, control=ControlConfig(socket=socket, view_socket=view))
        while chunk := [case for case, _ in zip(every, range(CASES_OF_A_DAEMON), strict=False)]:
            async with open_daemon(config) as daemon:
                for case in chunk:
                    case.data = data = make_of_a_viewer(case.chance)
                    with case.guarded():
                        answer = await exchange(view, data)
                        seen.update(STATUS.findall(answer))
                        assert not seen[b"500"], answer[:500]
                for event in ("control_crashed", "handler_crashed", "connection_crashed",
                              "actor_restarted"):  # fmt: skip
                    assert daemon.log(event) == []
                assert {line["result"] for line in daemon.log("control_change")} <= {"forbidden"}
                status = await exchange(socket, ask)
                report = json.loads(status.partition(b"\r\n\r\n")[2])
                assert (report["paused"], report["draining"]) == (False, False)
                assert (report["serving"]["pinned"], report["capture_payloads"]) == (None, 0)
                assert report["log_level"] == "debug"
                assert report["severed"]["servers"] == []
                assert sum(report["queue"].values()) == 0
    print(dict(seen))
    assert seen.total() < 100 or {b"200", b"403", b"404"} <= seen.keys()
