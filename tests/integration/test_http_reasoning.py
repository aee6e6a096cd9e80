"""What clients get of a model that thinks before it answers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from ai_ticket_daemon.testing.kobold.settings import VERSIONS
from tests.support.recorded_server import checked, open_recorded_server, perf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

THOUGHT = "I think so, and so on, and so on, for a long while."
WHOLE = f"<think>{THOUGHT}</think>Yes, it is."
INCLUDE = {"content": "Is it?", "reasoning": "include"}


@asynccontextmanager
async def running(url: str, store: Path) -> AsyncIterator[httpx.AsyncClient]:
    config = replace(
        config_for(ServerConfig(name="primary", url=url)),
        store=StoreConfig(url=f"sqlite:///{store}/events.db"),
    )
    with trio.fail_after(60):
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            yield client


def frames_of(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = reply.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def test_thinking_goes_to_who_wants_it_and_is_there_after_a_restart(tmp_path: Path) -> None:
    async with open_recorded_server("chat_reasoning") as server:
        async with running(server.url, tmp_path) as client:
            wanted = (await client.post("/event", json=INCLUDE)).json()
            dropped = (await client.post("/event", json={"content": "Is it?"})).json()
        assert (wanted["completion"], wanted["reasoning"]) == ("Yes, it is.", "I think so.")
        assert dropped["completion"] == "Yes, it is."
        assert "reasoning" not in dropped
        for answer in (wanted, dropped):
            assert answer["usage"] == {
                "prompt_tokens": 14,
                "completion_tokens": 22,
                "total_tokens": 36,
                "estimated": False,
                "reasoning_tokens": 11,
            }
        async with running(server.url, tmp_path) as client:
            for answer in (wanted, dropped):
                kept = (await client.get(f"/event/{answer['event_id']}")).json()["outcome"]
                assert kept == answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_thinking_is_parted_from_the_answer_whichever_version_thinks(
    version: str, tmp_path: Path
) -> None:
    settings = KoboldSettings(version=version, thinking=True).instant()
    async with open_simulated_kobold(settings) as server, running(server.url, tmp_path) as client:
        answer = (await client.post("/event", json=INCLUDE)).json()
        assert answer["reasoning"], answer
        assert answer["completion"], answer
        frames = frames_of(await client.post("/event", json=INCLUDE | {"stream": True}))
        assert "".join(frame.get("reasoning", "") for frame in frames) == answer["reasoning"]
        assert "".join(frame.get("delta", "") for frame in frames) == answer["completion"]
        assert "think>" not in answer["completion"]


async def test_thinking_is_streamed_in_frames_of_its_own(tmp_path: Path) -> None:
    figures = perf(stop_reason=1, last_token_count=22, last_input_count=14)
    async with (
        open_recorded_server("chat_reasoning_stream", perf=figures, check=checked(WHOLE)) as server,
        running(server.url, tmp_path) as client,
    ):
        keyed = {"idempotency-key": "a"}
        reply = await client.post("/event", json=INCLUDE | {"stream": True}, headers=keyed)
        again = await client.post("/event", json=INCLUDE | {"stream": True}, headers=keyed)
        other = await client.post("/event", json={"content": "Is it?"}, headers=keyed)
        without = await client.post("/event", json={"content": "Is it?", "stream": True})
    for answer in (reply, again):
        *frames, last = frames_of(answer)
        assert "".join(frame.get("reasoning", "") for frame in frames) == THOUGHT
        assert "".join(frame.get("delta", "") for frame in frames) == "Yes, it is."
        assert (last["done"], last["finish_reason"]) == (True, "stop")
        assert "reasoning" not in last
    assert other.status_code == 409, "it asks for another answer"
    *frames, last = frames_of(without)
    assert "".join(frame["delta"] for frame in frames) == "Yes, it is."
    assert last["usage"]["completion_tokens"] == 22


async def test_a_model_cut_while_it_thinks_answers_with_its_thinking_alone(tmp_path: Path) -> None:
    async with (
        open_recorded_server("chat_reasoning_cut_by_limit_stream") as server,
        running(server.url, tmp_path) as client,
    ):
        body = INCLUDE | {"stream": True, "max_tokens": 12}
        *frames, last = frames_of(await client.post("/event", json=body))
        kept = (await client.get(f"/event/{last['event_id']}")).json()["outcome"]
    assert [frame for frame in frames if "delta" in frame] == []
    assert last["finish_reason"] == "length"
    thought = "The primary colours are: Red, Blue, and Green."
    assert (kept["completion"], kept["reasoning"]) == ("", thought)


async def test_the_effort_goes_to_the_server_and_a_word_nobody_knows_is_refused(
    tmp_path: Path,
) -> None:
    async with (
        open_recorded_server("chat_reasoning") as server,
        running(server.url, tmp_path) as client,
    ):
        await client.post("/event", json=INCLUDE | {"reasoning_effort": "low"})
        sent = [body for body in server.bodies if b"messages" in body]
        assert [json.loads(body).get("reasoning_effort") for body in sent] == ["low"]
        for field, value in (("reasoning", True), ("reasoning_effort", "lots")):
            refused = await client.post("/event", json={"content": "a", field: value})
            assert refused.status_code == 422
            assert refused.json()["details"]["field"] == field
