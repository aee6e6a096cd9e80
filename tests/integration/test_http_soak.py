"""Clients of every kind at once, many of which leave in the middle: nothing is left behind."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold

if TYPE_CHECKING:
    from pathlib import Path

NDJSON = {"accept": "application/x-ndjson"}
ASYNC = {"prefer": "respond-async"}
CLIENTS = 12
REQUESTS = 8
FINAL = {"succeeded", "failed", "cancelled", "expired"}


async def ask(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Return the status and body of an answer; closes the connection when cancelled."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"host": "a", "connection": "close", "content-length": str(len(data))}
    if data:
        fields["content-type"] = "application/json"
    lines = [f"{name}: {value}" for name, value in (fields | (headers or {})).items()]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(head + data)
        answer = b"".join([piece async for piece in stream])
    first, _, text = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in first.lower():
        pieces = []
        while not text.startswith(b"0\r\n"):
            size, _, text = text.partition(b"\r\n")
            pieces.append(text[: int(size, 16)])
            text = text[int(size, 16) + 2 :]
        text = b"".join(pieces)
    return int(first.split()[1]), text


class Crowd:
    """Clients that do this and that, and remember the ids they were told."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.ids: set[str] = set()
        self.statuses: set[int] = set()

    async def act(self) -> None:
        number = self.random.randrange(30)
        event = {"content": f"ticket {number}", "max_tokens": self.random.choice([1, 3, 20])}
        keyed = {"idempotency-key": f"{number} {event['max_tokens']}"}
        batch = [event, {"content": 5}, event]
        match self.random.randrange(10):
            case 0:
                await self.post("/event", event)
            case 1:
                await self.post("/event", event | {"stream": True})
            case 2:
                await self.post("/event", event, ASYNC)
            case 3:
                await self.post("/event", event, {"prefer": "wait=1"})
            case 4:
                await self.post("/event", event | {"stream": bool(number % 2)}, keyed)
            case 5:
                await self.post("/events", batch)
            case 6:
                await self.post("/events", batch, NDJSON)
            case 7:
                await self.post("/events", batch, ASYNC | {"idempotency-key": f"batch {number}"})
            case 8 if self.ids:
                path = f"/event/{self.random.choice(sorted(self.ids))}?wait=0.5"
                self.statuses.add((await ask(self.port, "GET", path))[0])
            case 9 if self.ids:
                path = f"/event/{self.random.choice(sorted(self.ids))}"
                self.statuses.add((await ask(self.port, "DELETE", path))[0])

    async def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> None:
        status, text = await ask(self.port, "POST", path, body, headers)
        self.statuses.add(status)
        if path == "/events":
            if headers and "accept" in headers:
                answers: list[Any] = [json.loads(line) for line in text.split(b"\n") if line]
            else:
                answers = json.loads(text)
            assert sorted(answer["index"] for answer in answers) == [0, 1, 2]
            self.ids |= {one["event_id"] for one in answers if one["status"] in (200, 202)}
        elif status == 202:
            self.ids.add(json.loads(text)["event_id"])

    async def run(self) -> None:
        for _ in range(REQUESTS):
            patience = self.random.choice([0.0, 0.01, 0.05, 0.2, 20.0])
            with trio.move_on_after(patience):
                await self.act()


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_clients_do_every_event_ends_and_nothing_is_left(
    seed: int, tmp_path: Path
) -> None:
    settings = replace(KoboldSettings().scaled(0.05), tokens_per_second=400)
    async with open_simulated_kobold(settings) as simulated:
        config = replace(
            config_for(ServerConfig(name="primary", url=simulated.url)),
            store=StoreConfig(url=f"sqlite:///{tmp_path}/events.db"),
        )
        async with open_daemon(config) as daemon:
            port = int(daemon.url.rpartition(":")[2])
            crowds = [Crowd(port, 100 * seed + number) for number in range(CLIENTS)]
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for crowd in crowds:
                        nursery.start_soon(crowd.run)
                for event_id in sorted(set.union(*(crowd.ids for crowd in crowds))):
                    _, looked = await ask(port, "GET", f"/event/{event_id}?wait=60")
                    assert json.loads(looked)["state"] in FINAL
                # Last in the queue: when it has ended, so has everything before it.
                last = {"content": "last", "priority": 9}
                assert (await ask(port, "POST", "/event", last))[0] == 200
                await simulated.wait_for(lambda s: s.running == 0)
            assert set.union(*(crowd.statuses for crowd in crowds)) <= {200, 202, 409}
            for crash in ("handler_crashed", "worker_crashed", "actor_restarted", "http_server"):
                assert daemon.log(crash) == []
            daemon.stop()
            with trio.fail_after(60):
                await daemon.stopped.wait()
