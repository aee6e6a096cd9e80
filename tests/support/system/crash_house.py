"""A daemon that is killed again and again, and clients that remember all it told them."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.system.endings import how_it_ended

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from ai_ticket_daemon.testing.kobold import SimulatedKobold

FINAL = {"succeeded", "failed", "cancelled", "expired"}
FIRST_CLAIM_SECONDS = 60.0
"""A third of a lease, for which an event would wait that a start does not take over."""
MAX_OPEN = 120
"""Clients submit no more while so many of their events have not been seen to end."""


@dataclass
class Ledger:
    """What the daemon told its clients: events it accepted, and how events ended."""

    accepted: list[str] = field(default_factory=list)
    ended: dict[str, tuple[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[str]:
        return [event_id for event_id in self.accepted if event_id not in self.ended]

    def accept(self, event_id: str, key: str | None = None) -> None:
        if key is not None:
            assert self.keys.setdefault(key, event_id) == event_id, f"{key} became another event"
        if event_id not in self.accepted:
            self.accepted.append(event_id)

    def see(self, status: dict[str, Any], *, had_ended: bool) -> None:
        """Note the answer of GET or DELETE; what was seen once must never change.

        ``had_ended`` tells whether the event had been seen to end when the answer was asked for:
        answers to several clients may overtake each other.
        """
        event_id, seen = status["event_id"], (status["state"], status["outcome"])
        if status["state"] in FINAL:
            assert self.ended.setdefault(event_id, seen) == seen, f"{event_id} ended twice"
            assert status["outcome"] is not None
        else:
            assert not had_ended, f"{event_id} had ended and is {status['state']}"

    def complete(self, answer: dict[str, Any]) -> None:
        """Note a completion that a waiting client was given."""
        self.accept(answer["event_id"])
        seen = ("succeeded", answer)
        assert self.ended.setdefault(answer["event_id"], seen) == seen


class House:
    """One store, two simulated servers, and the daemon, as long as it lives."""

    def __init__(self, folder: Path, servers: Sequence[SimulatedKobold]) -> None:
        self.store = folder / "events.db"
        self.first_claims: list[float] = []
        self._servers = servers
        self._conf = folder / "ai-ticket.conf"
        self._log = folder / "daemon.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        lines = [
            f'http.bind = ["127.0.0.1:{port}"]',
            'metrics.bind = "127.0.0.1:0"',
            'telemetry.traces = "none"',
            "rate_limit.requests = 0",
            f'store.url = "sqlite:///{self.store}"',
        ]
        for role, server in zip(("primary", "standby"), servers, strict=True):
            lines += ["[[backends.server]]", f'name = "{role}"', f'role = "{role}"']
            lines += [f'url = "{server.url}"']
        self._conf.write_text("\n".join(lines))
        self._process: trio.Process | None = None
        self._serving = trio.Event()
        self._over = False

    async def serving(self) -> bool:
        """Return when a daemon serves; False when clients are to end."""
        await self._serving.wait()
        return not self._over

    def send_clients_home(self) -> None:
        """Let clients end, of their own accord: what they ask for now is answered or cut off."""
        self._over = True
        self._serving.set()

    async def spawn(self) -> None:
        self._began = self._generations()
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "ai_ticket_daemon", "--config", str(self._conf)], stderr=PIPE
        )

    async def started(self, nursery: trio.Nursery) -> None:
        """Wait for the daemon to serve; its log goes into a file."""
        assert self._process is not None
        assert self._process.stderr is not None
        stream, seen = self._process.stderr, b""
        while b'"event":"started"' not in seen.replace(b": ", b":"):
            chunk = await stream.receive_some()
            if not chunk:
                raise AssertionError(how_it_ended(await self._process.wait(), seen.decode()))
            seen += chunk
        nursery.start_soon(self._keep_log, stream, seen)
        self._serving.set()

    async def first_claim(self) -> None:
        """Wait for the first event to reach a server."""
        began = trio.current_time()
        with trio.move_on_after(FIRST_CLAIM_SECONDS) as patience:
            async with trio.open_nursery() as nursery:
                for server in self._servers:
                    nursery.start_soon(self._claimed, server, nursery.cancel_scope)
        self.assert_alive()
        assert not patience.cancelled_caught, (
            f"no event reached a server in {FIRST_CLAIM_SECONDS} s"
        )
        self.first_claims.append(trio.current_time() - began)

    async def idle(self) -> None:
        """Return when nothing is queued or running any more."""
        queue: dict[str, int] = {}
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            for _ in range(600):
                queue = (await http.get("/health")).json()["queue"]
                if queue["queued"] == queue["running"] == 0:
                    return
                await trio.sleep(0.1)
        raise AssertionError(f"still not done: {queue}")

    async def kill(self) -> None:
        """Kill the daemon, which has to be alive until then."""
        assert self._process is not None
        self.assert_alive()
        if self._serving.is_set():
            self._serving = trio.Event()
        await self.end()

    async def end(self) -> None:
        """Have no daemon any more, whatever has happened to it."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> int:
        assert self._process is not None
        self.assert_alive()
        self._process.terminate()
        with trio.fail_after(60):
            return await self._process.wait()

    def assert_alive(self) -> None:
        """Fail, telling how it ended, if the daemon does not run any more."""
        assert self._process is not None
        told = self._log.read_text(errors="replace") if self._log.exists() else ""
        assert self._process.poll() is None, how_it_ended(self._process.returncode, told)

    async def _claimed(self, server: SimulatedKobold, scope: trio.CancelScope) -> None:
        await server.wait_for(lambda _: self._generations() > self._began)
        scope.cancel()

    def _generations(self) -> int:
        return sum(server.observations.started_total for server in self._servers)

    async def _keep_log(self, stream: trio.abc.ReceiveStream, seen: bytes) -> None:
        with self._log.open("ab") as log:
            log.write(seen)
            async for chunk in stream:
                log.write(chunk)


@asynccontextmanager
async def crash_house(folder: Path) -> AsyncIterator[House]:
    settings = replace(KoboldSettings().scaled(0.05), tokens_per_second=600, prompt_seconds=0.005)
    async with open_simulated_kobold(settings) as one, open_simulated_kobold(settings) as two:
        house = House(folder, [one, two])
        try:
            yield house
        finally:
            with trio.CancelScope(shield=True):
                await house.end()


class Client:
    """Submits, looks and cancels at random, whatever becomes of the daemon."""

    def __init__(self, house: House, ledger: Ledger, chance: random.Random, name: str) -> None:
        self._house = house
        self._ledger = ledger
        self._chance = chance
        self._name = name
        self._number = 0

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self._house.url, timeout=60) as http:
            while await self._house.serving():
                do = self._chance.choice(
                    [self._wait, self._submit, self._submit, self._batch, self._keyed]
                    if len(self._ledger.open) < MAX_OPEN
                    else [self._look, self._cancel]
                )
                if self._chance.random() < 0.4:
                    do = self._chance.choice([self._look, self._look, self._cancel])
                try:
                    await do(http)
                except httpx.TransportError:
                    await trio.sleep(0.005)  # killed meanwhile; nothing was promised

    def _body(self) -> dict[str, Any]:
        self._number += 1
        text = f"{self._name} {self._number} " + "words " * self._chance.randrange(20)
        return {"content": text, "max_tokens": self._chance.randrange(1, 24)}

    async def _wait(self, http: httpx.AsyncClient) -> None:
        reply = await http.post("/event", json=self._body())
        if reply.status_code == 200:
            self._ledger.complete(reply.json())

    async def _submit(self, http: httpx.AsyncClient, key: str | None = None) -> None:
        headers = {"prefer": "respond-async"} | ({"idempotency-key": key} if key else {})
        body = {"content": key, "max_tokens": 3} if key else self._body()
        reply = await http.post("/event", json=body, headers=headers)
        if reply.status_code in {200, 202}:
            self._ledger.accept(reply.json()["event_id"], key)

    async def _keyed(self, http: httpx.AsyncClient) -> None:
        """Submit what may have been submitted before, by anybody, in any life of the daemon."""
        await self._submit(http, f"key-{self._chance.randrange(1 + len(self._ledger.accepted))}")

    async def _batch(self, http: httpx.AsyncClient) -> None:
        bodies = [self._body() for _ in range(self._chance.randrange(1, 20))]
        headers = {"prefer": "respond-async", "content-type": "application/x-ndjson"}
        reply = await http.post("/events", content="\n".join(map(json.dumps, bodies)),
                                headers=headers)  # fmt: skip
        if reply.status_code == 202:
            answers = reply.json()
            assert len(answers) == len(bodies)
            for answer in answers:
                self._ledger.accept(answer["event_id"])

    async def _look(self, http: httpx.AsyncClient) -> None:
        if self._ledger.accepted:
            event_id = self._chance.choice(self._ledger.open or self._ledger.accepted)
            if self._chance.random() < 0.3:
                event_id = self._chance.choice(self._ledger.accepted)
            await look(http, self._ledger, event_id, self._chance.choice([0, 0.2]))

    async def _cancel(self, http: httpx.AsyncClient) -> None:
        if self._ledger.accepted and self._chance.random() < 0.5:
            event_id = self._chance.choice(self._ledger.open or self._ledger.accepted)
            had_ended = event_id in self._ledger.ended
            reply = await http.delete(f"/event/{event_id}")
            assert reply.status_code in {200, 503}, reply.text
            if reply.status_code == 200:
                self._ledger.see(reply.json(), had_ended=had_ended)


async def look(http: httpx.AsyncClient, ledger: Ledger, event_id: str, seconds: float) -> None:
    had_ended = event_id in ledger.ended
    reply = await http.get(f"/event/{event_id}", params={"wait": seconds})
    assert reply.status_code in {200, 503}, f"{event_id} was accepted: {reply.text}"
    if reply.status_code == 200:
        ledger.see(reply.json(), had_ended=had_ended)
