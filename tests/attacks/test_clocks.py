"""The clock of the host is set while the daemon works, and while it is away."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings
from tests.support.attacks.attacked_daemon import attacked
from tests.support.attacks.set_clock import CACHED_SECONDS, SetClock, need_faketime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.attacks.attacked_daemon import AttackedDaemon

pytestmark = pytest.mark.system

HOUR = 3600.0
DAY = 24 * HOUR
SLOW = KoboldSettings(tokens_per_second=12.0, natural_tokens=(12, 12)).scaled(0.02)
"""About a second for each event: the clock is set while one runs and others wait."""
PATIENCE_SECONDS = 120


@pytest.fixture
def clock(tmp_path: Path) -> SetClock:
    return SetClock(tmp_path / "clock", need_faketime())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        yield client


async def submit(daemon: AttackedDaemon, client: httpx.AsyncClient, number: int) -> str:
    answer = await client.post(
        f"{daemon.url}/event",
        json={"content": f"ticket {number}", "max_tokens": 12, "timeout_seconds": 600},
        headers={"prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["event_id"])


async def ended(daemon: AttackedDaemon, client: httpx.AsyncClient, event_id: str) -> Any:
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            found = (await client.get(f"{daemon.url}/event/{event_id}?wait=30")).json()
            if found["outcome"] is not None:
                return found


async def running(daemon: AttackedDaemon, client: httpx.AsyncClient, event_id: str) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        state = "queued"
        while state == "queued":
            state = (await client.get(f"{daemon.url}/event/{event_id}")).json()["state"]


async def why(daemon: AttackedDaemon, event_id: str) -> list[Any]:
    transport = httpx.AsyncHTTPTransport(uds=str(daemon.control))
    async with httpx.AsyncClient(transport=transport, timeout=60) as control:
        told = await control.get(f"http://localhost/control/why?event_id={event_id}")
    assert told.status_code == 200, told.text
    lines: list[Any] = told.json()["lines"]
    return lines


def instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def sums(daemon: AttackedDaemon, client: httpx.AsyncClient) -> dict[str, float]:
    """Return the sums and counts of all histograms, which only ever grow."""
    host, port = daemon.metrics
    page = (await client.get(f"http://{host}:{port}/metrics")).text
    found = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {
        name: float(value)
        for name, _, value in found
        if name.partition("{")[0].endswith(("_sum", "_count", "_bucket", "_total"))
    }


@pytest.mark.parametrize("step", [2 * HOUR, -2 * HOUR, 60 * DAY, -60 * DAY])
async def test_a_clock_that_is_set_expires_nothing_and_makes_no_time_negative(
    tmp_path: Path, clock: SetClock, client: httpx.AsyncClient, step: float
) -> None:
    async with attacked(tmp_path, environment=clock.environment, kobold=SLOW) as daemon:
        events = [await submit(daemon, client, number) for number in range(4)]
        await running(daemon, client, events[0])
        before = await sums(daemon, client)
        clock.set(step)
        await trio.sleep(2 * CACHED_SECONDS)
        events.append(await submit(daemon, client, 4))
        answers = [await ended(daemon, client, event_id) for event_id in events]
        after = await sums(daemon, client)
        with trio.fail_after(PATIENCE_SECONDS):
            while not daemon.logged("clock_set"):  # noqa: ASYNC110 - a file tells nobody
                await trio.sleep(0.1)
        answers = [await ended(daemon, client, event_id) for event_id in events]

        for answer in answers:
            assert answer["state"] == "succeeded", answer
            assert 0 <= answer["outcome"]["duration_seconds"] < PATIENCE_SECONDS
            times = [instant(answer["submitted_at"])]
            for attempt in answer["attempts"]:
                times += [instant(attempt["started_at"]), instant(attempt["ended_at"])]
            assert times == sorted(times)
            # All of it is told by the calendar as it is now.
            assert abs(times[0] - (time.time() + step)) < PATIENCE_SECONDS
            assert instant(answer["deadline_at"]) - times[0] == pytest.approx(600, abs=0.01)
        assert events == sorted(events)
        fallen = {name for name, value in before.items() if after.get(name, value) < value}
        assert fallen == set()

        for event_id in events:
            lines = await why(daemon, event_id)
            names = [line["name"] for line in lines if line["name"] != "server"]
            assert (names[0], names[-1]) == ("accepted", "ended")
            assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
        texts = [line["text"] for event in events for line in await why(daemon, event)]
        assert any("the clock of the host was set" in text for text in texts), texts

        [told] = daemon.logged("clock_set")
        assert told["level"] == "warning"
        assert told["step_seconds"] == pytest.approx(step, abs=1)
        await daemon.stop()


@pytest.mark.parametrize("step", [2 * HOUR, -2 * HOUR])
async def test_a_clock_that_is_set_while_the_daemon_is_away_expires_nothing(
    tmp_path: Path, clock: SetClock, client: httpx.AsyncClient, step: float
) -> None:
    environment = clock.environment
    async with attacked(tmp_path, environment=environment, kobold=SLOW) as daemon:
        first = await submit(daemon, client, 0)
        ended_before = await ended(daemon, client, first)
        events = [await submit(daemon, client, number) for number in range(1, 4)]
        await running(daemon, client, events[0])
        daemon.process.kill()
        await daemon.process.wait()
    clock.set(step)
    daemon.log.rename(tmp_path / "before.log")
    async with attacked(tmp_path, environment=environment, kobold=SLOW) as daemon:
        for event_id in events:
            answer = await ended(daemon, client, event_id)
            assert answer["state"] == "succeeded", answer
            assert 0 <= answer["outcome"]["duration_seconds"] < PATIENCE_SECONDS
            assert all(
                instant(attempt["started_at"]) <= instant(attempt["ended_at"])
                for attempt in answer["attempts"]
            )
        # What had ended is neither forgotten nor changed, but for the calendar.
        kept = (await client.get(f"{daemon.url}/event/{first}")).json()
        assert kept["outcome"] == ended_before["outcome"]
        moved = instant(kept["submitted_at"]) - instant(ended_before["submitted_at"])
        assert moved == pytest.approx(step, abs=1)
        [told] = daemon.logged("clock_set")
        assert told["step_seconds"] == pytest.approx(step, abs=1)
        await daemon.stop()
