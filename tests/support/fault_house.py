"""A daemon between a client and two servers that fail on demand, for the fault table."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.testing.daemon import RunningDaemon, config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, SimulatedKobold, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SPEED = replace(
    KoboldSettings().scaled(0.1), tokens_per_second=60, prompt_seconds=0.2, overtake=False
)
"""A tenth of the recorded server's delays; a prompt is read in 0.2 s, a token made in 17 ms."""
TOKENS = 30
"""Of each completion, so that a generation takes 0.2 + 0.5 s."""
GENERATION_SECONDS = 0.7
FIRST_TOKEN_SECONDS = 3.5
STALL_SECONDS = 1.5
CONTENT = "Classify this ticket, please."


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client got, and when, counted from ``began``."""

    status: int
    text: str
    body: dict[str, Any]
    seconds: float

    @property
    def backend(self) -> str | None:
        """Who made the completion; None if there is none."""
        return None if "error" in self.body else self.body["backend"]

    @property
    def error(self) -> str | None:
        """The error code; None if there is a completion."""
        return self.body.get("error")

    @property
    def why_not_retried(self) -> str | None:
        """What the error says about that."""
        details = self.body.get("details") or {}
        return details.get("not_retried_because")


@dataclass(slots=True)
class House:
    """The parts, and what a fault needs to strike at the right moment."""

    primary: SimulatedKobold
    standby: SimulatedKobold
    daemon: RunningDaemon
    client: httpx.AsyncClient
    struck_at: float = 0.0

    def strikes_now(self) -> None:
        """Start the clock: the time allowed runs from the fault, not from the request."""
        self.struck_at = trio.current_time()

    async def primary_reads_the_prompt(self) -> None:
        """Wait until the primary has begun with the event, and has made no token yet."""
        await self.primary.wait_for(lambda s: s.running)

    async def primary_is_amid_the_text(self) -> None:
        """Wait until the primary has made 12 tokens for the event, and stands still there."""
        self.primary.faults.stall(after_tokens=12)
        await self.primary.wait_for(lambda s: s.faults.stalled_tasks)

    async def state(self, name: str) -> str:
        """Return the state of a server that ``/health`` shows."""
        report = (await self.client.get("/health")).json()
        return next(str(b["state"]) for b in report["backends"] if b["name"] == name)

    async def until_state(self, name: str, *states: str) -> None:
        """Wait until a server is in one of some states."""
        with trio.fail_after(60):
            while True:
                if await self.state(name) in states:
                    return
                await trio.sleep(0.02)

    async def ask(self, mode: str) -> list[Answer]:
        """Send an event, a batch of two in the mode ``batch``; return what came of each."""
        began = trio.current_time()
        body: dict[str, Any] = {"content": CONTENT, "max_tokens": TOKENS, "timeout_seconds": 3600}
        match mode:
            case "streaming":
                found = [await self._stream(body | {"stream": True})]
            case "async":
                found = [await self._later(body)]
            case "batch":
                response = await self.client.post("/events", json=[body, body])
                found = [
                    (item["status"], item.get("completion", ""), item) for item in response.json()
                ]
            case _:
                response = await self.client.post("/event", json=body)
                answer = response.json()
                found = [(response.status_code, answer.get("completion", ""), answer)]
        seconds = trio.current_time() - max(began, self.struck_at)
        return [Answer(*parts, seconds) for parts in found]

    async def _later(self, body: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        accepted = await self.client.post("/event", json=body, headers={"prefer": "respond-async"})
        assert accepted.status_code == 202, accepted.text
        found = await self.client.get(f"{accepted.headers['location']}?wait=30")
        outcome = found.json()["outcome"]
        assert outcome is not None, found.text
        return found.status_code, outcome.get("completion", ""), outcome

    async def _stream(self, body: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
        async with self.client.stream("POST", "/event", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                return response.status_code, "", response.json()
            frames = [
                json.loads(line.removeprefix("data: "))
                async for line in response.aiter_lines()
                if line.startswith("data: ")
            ]
        assert [frame["done"] for frame in frames] == [False] * (len(frames) - 1) + [True]
        return 200, "".join(frame.get("delta", "") for frame in frames), frames[-1]


@asynccontextmanager
async def open_house(version: str) -> AsyncIterator[House]:
    """Run the parts for the length of a block, with limits short enough for a test.

    Args:
        version: what the servers are.
    """
    speed = replace(SPEED, version=version)
    async with open_simulated_kobold(speed) as primary, open_simulated_kobold(speed) as standby:
        config = config_for(
            _server(primary, "primary", BackendRole.PRIMARY),
            _server(standby, "standby", BackendRole.STANDBY),
        )
        rules = replace(
            config.backends, probe_timeout_seconds=0.5, stall_timeout_seconds=STALL_SECONDS
        )
        async with (
            open_daemon(replace(config, backends=rules)) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            yield House(primary, standby, daemon, client)


def _server(simulated: SimulatedKobold, name: str, role: BackendRole) -> ServerConfig:
    return ServerConfig(
        name=name,
        url=simulated.url,
        role=role,
        model=SPEED.model,
        connect_timeout_seconds=1,
        first_token_timeout_seconds=FIRST_TOKEN_SECONDS,
        total_timeout_seconds=20,
    )
