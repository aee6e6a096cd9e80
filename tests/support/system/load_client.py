"""Clients that post events one after the other, each over a connection of its own, until told.

Runs inside the container, on the Python of the installed daemon:
``load_client.py CLIENTS URL PAUSE``, where each client pauses so many seconds between two events.
Ends when its standard input does, and prints what it has seen as one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

TIMEOUT_SECONDS = 60


@dataclass
class Seen:
    """What the clients got; a failure is anything but a completion."""

    completions: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)


async def post_for_ever(
    client: httpx.AsyncClient, url: str, pause_seconds: float, seen: Seen
) -> None:
    body: dict[str, Any] = {"content": "a ticket", "max_tokens": 4}
    while True:
        started = time.monotonic()
        try:
            with trio.CancelScope(shield=True):  # the last one is waited for like all others
                answer = await client.post(f"{url}/event", json=body)
        except httpx.HTTPError as error:
            seen.failures.append(repr(error))
        else:
            seen.statuses[answer.status_code] += 1
            if answer.status_code == 200 and answer.json()["completion"]:
                seen.completions += 1
            else:
                seen.failures.append(f"{answer.status_code} {answer.text[:300]}")
        seen.slowest_seconds = max(seen.slowest_seconds, time.monotonic() - started)
        await trio.sleep(pause_seconds)


async def main(clients: int, url: str, pause_seconds: float) -> None:
    seen = Seen()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(limits=limits, timeout=TIMEOUT_SECONDS, trust_env=False) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(clients):
            nursery.start_soon(post_for_ever, client, url, pause_seconds, seen)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    print(json.dumps(vars(seen)))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
