"""Bodies made to keep the event loop, or the memory: none does, in a loop of them all."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from tests.support.attacks.attack_watch import Limits
from tests.support.attacks.attacked_daemon import attacked
from tests.support.attacks.loop_meter import least

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

MIB = 2**20
LONG = bool(os.environ.get("AI_TICKET_ATTACKS_LONG"))
"""The long form: the largest bodies in all numbers, some minutes."""
ONE, MANY = "/event", "/events"
JSON, LINES = "application/json", "application/x-ndjson"
AT_ONCE = 16 if LONG else 8
GROUP = 4 * AT_ONCE
OWN_SECONDS = 0.05
LAG_SECONDS = 0.25
"""What the threads of the daemon compute meanwhile is in it; the rule is the other one."""
FAR_TOO_LONG_SECONDS = 1.0


def filled(begin: bytes, piece: bytes, end: bytes, size: int) -> bytes:
    """Return ``piece`` as often as ``size`` allows, between two ends."""
    return begin + piece * ((size - len(begin) - len(end)) // len(piece)) + end


def content(inner: bytes) -> bytes:
    return b'{"content":' + inner + b"}"


def as_text(inner: bytes) -> bytes:
    """Return an event whose content is a string that holds this JSON."""
    return json.dumps({"content": inner.decode()}).encode()


def bombs(size: int) -> list[bytes]:
    """Return JSON of about ``size`` bytes of which as much as possible would become of it."""
    keys = b",".join(b'"%x":0' % n for n in range(size // 10))
    return [
        filled(b"[", b'{"a":[]},', b"0]", size),
        filled(b"[", b"[],", b"0]", size),
        filled(b"[", b"{},", b"0]", size),
        filled(b"[", b"0,", b"0]", size),
        filled(b"[", b"1.5e-9,", b"0]", size),
        filled(b"[", b'"",', b'""]', size),
        filled(b"[", b'"\\u00e9",', b'""]', size),
        b"[" * size,
        b"[" * (size // 2) + b"]" * (size // 2),
        filled(b"", b'{"a":', b"", size),
        filled(b'{"a":0', b',"a":0', b"}", size),
        b"{" + keys + b"}",
        b'"' + b"\\n" * (size // 2 - 1) + b'"',
        b'"' + b"\\ud83d\\ude00" * (size // 12 - 1) + b'"',
        b'"' + b"[{," * (size // 3 - 1) + b'"',
        b'"' + "😀".encode() * (size // 4 - 1) + b'"',
        b'"' + b"x" * (size - 1),
        b'"' + b"\\" * (size - 1),
        filled(b'"', b"1" * 99 + b"x", b'"', size),
        b"1" * size,
        b"0." + b"1" * (size - 2),
        filled(b"[", b"1" * 4290 + b",", b"0]", size),
        filled(b"[", b"1." + b"9" * 800 + b"e-300,", b"0]", size),
        b" " * size,
        b"\n" * size,
        b"\xff" * size,
        b"\xef\xbb\xbf" * (size // 3),
    ]


def attacks() -> list[tuple[str, str, bytes]]:
    """Return route, media type and body of each attack."""
    size, large = MIB - 100, (16 if LONG else 2) * MIB - 100
    found = []
    for bomb in bombs(size):
        found.append((ONE, JSON, bomb))
        found.append((ONE, JSON, content(bomb[:size])))
        found.append((ONE, JSON, b'{"content":"a","metadata":{"a":' + bomb[: size - 20] + b"}}"))
        found.append((ONE, JSON, b'{"content":"a","stop":' + bomb + b"}"))
    small = 100_000
    for bomb in bombs(small):
        if bomb.isascii() and b"\\" not in bomb:
            found.append((ONE, JSON, as_text(b'{"prompt":"a","more":' + bomb + b"}")))
            found.append((ONE, JSON, json.dumps({"content": [bomb.decode()] * 9}).encode()))
    for bomb in bombs(large):
        found.append((MANY, JSON, bomb))
        found.append((MANY, JSON, b"[" + bomb + b"]"))
        found.append((MANY, LINES, bomb))
    for bomb in bombs(16_000):
        event = content(bomb)
        number = large // (len(event) + 1)
        found.append((MANY, JSON, b"[" + b",".join([event] * number) + b"]"))
        found.append((MANY, LINES, b"\n".join([event] * number)))
    found.append((MANY, LINES, filled(b"", b'{"content":1}\n', b"", large)))
    found.append((MANY, LINES, filled(b"", b" \n", b"", large)))
    return found


async def test_no_body_keeps_the_loop_or_the_memory(tmp_path: Path) -> None:
    limits = Limits(peak_mib=300, kept_mib=40, log_kib=4096, lag_seconds=FAR_TOO_LONG_SECONDS)
    statuses: set[int] = set()
    slow: list[tuple[float, list[str]]] = []
    async with attacked(
        tmp_path, "log.capture_payloads = 5", f'log.capture_directory = "{tmp_path}/captures"'
    ) as daemon:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=120, trust_env=False) as client:
            turn = trio.CapacityLimiter(AT_ONCE)

            async def send(route: str, media_type: str, body: bytes) -> None:
                async with turn:
                    headers = {"content-type": media_type, "prefer": "respond-async"}
                    answer = await client.post(route, content=body, headers=headers)
                    statuses.add(answer.status_code)

            async def silence(some: list[tuple[str, str, bytes]]) -> float:
                """Send these; return the silence of the loop, as a part of what it may be."""
                daemon.meter.reset()
                async with trio.open_nursery() as nursery:
                    for attack in some:
                        nursery.start_soon(send, *attack)
                lag_seconds, _, own_seconds = daemon.meter.worst()
                return max(lag_seconds / LAG_SECONDS, own_seconds / OWN_SECONDS)

            async with daemon.watched(limits):
                sent = attacks()
                for begin in range(0, len(sent), GROUP):
                    some = sent[begin : begin + GROUP]
                    if (found := await least(partial(silence, some), 1.0)) > 1.0:
                        slow.append((found, [f"{r} {t} {body[:40]!r}" for r, t, body in some]))
        print(statuses)
        assert not slow
        assert statuses <= {202, 400, 413, 422, 503}
        await daemon.stop()
