"""The HTTP surface on the real pipeline and both stores, in front of a simulated KoboldCPP."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, answer_mark, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.testing.daemon import RunningDaemon
    from ai_ticket_daemon.testing.kobold import SimulatedKobold

QUICK = KoboldSettings().scaled(0.05)
SLOW = replace(QUICK, tokens_per_second=10)
NDJSON = "application/x-ndjson"
ASYNC = {"prefer": "respond-async"}
LONG = {"content": "Write a long story.", "max_tokens": 300}


@dataclass(frozen=True)
class Stage:
    simulated: SimulatedKobold
    daemon: RunningDaemon
    client: httpx.AsyncClient

    async def submit(self, content: str, max_tokens: int = 4, **headers: str) -> httpx.Response:
        reply = await self.client.post(
            "/event",
            json={"content": content, "max_tokens": max_tokens},
            headers=ASYNC | {name.replace("_", "-"): value for name, value in headers.items()},
        )
        assert reply.status_code == 202, reply.text
        return reply

    async def look(self, event_id: str, seconds: float = 20) -> dict[str, Any]:
        reply = await self.client.get(f"/event/{event_id}", params={"wait": seconds})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    memory = request.param == "memory"
    return StoreConfig(url="memory:" if memory else f"sqlite:///{tmp_path}/events.db")


@asynccontextmanager
async def running(config: Config, simulated: SimulatedKobold) -> AsyncIterator[Stage]:
    async with (
        open_daemon(config) as daemon,
        httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
    ):
        yield Stage(simulated, daemon, client)


@asynccontextmanager
async def stage(
    store: StoreConfig, settings: KoboldSettings = QUICK, **sections: Any
) -> AsyncIterator[Stage]:
    async with open_simulated_kobold(settings) as simulated:
        config = config_for(ServerConfig(name="primary", url=simulated.url))
        async with running(replace(config, store=store, **sections), simulated) as opened:
            yield opened


async def leave_after(
    client: httpx.AsyncClient, simulated: SimulatedKobold, **request: Any
) -> None:
    """Send a request and close its connection as soon as the backend writes."""
    written = simulated.tokens_written
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def hang_up() -> None:
                await simulated.wait_for(lambda s: s.running == 1 and s.tokens_written > written)
                nursery.cancel_scope.cancel()

            nursery.start_soon(hang_up)
            await client.post(**request)


async def until_idle(simulated: SimulatedKobold) -> None:
    with trio.fail_after(60):
        await simulated.wait_for(lambda s: s.running == 0)


async def test_an_event_is_handed_over_now_and_fetched_later(store: StoreConfig) -> None:
    async with stage(store) as at:
        accepted = await at.submit("Hello.")
        body = accepted.json()
        assert accepted.headers["location"] == f"/event/{body['event_id']}"
        assert body["state"] == "queued"
        assert body["position"] == 1
        found = await at.look(body["event_id"])
        assert found["state"] == "succeeded"
        assert found["outcome"]["completion"].startswith(answer_mark("Hello."))
        assert found["outcome"]["event_id"] == body["event_id"]
        (attempt,) = found["attempts"]
        assert (attempt["backend"], attempt["error"]) == ("primary", None)
        assert found["submitted_at"] <= attempt["started_at"] <= attempt["ended_at"]


async def test_the_queue_is_told_by_position_and_estimated_by_throughput(
    store: StoreConfig,
) -> None:
    async with stage(store) as at:
        for number in range(3):
            first = await at.submit(f"warm up {number}")
            assert (await at.look(first.json()["event_id"]))["state"] == "succeeded"
        running = await at.submit("Tell me a story.", 200)
        with trio.fail_after(60):
            await at.simulated.wait_for(lambda s: s.running == 1)
        waiting = [(await at.submit(f"waits {number}")).json() for number in range(3)]
        assert [one["position"] for one in waiting] == [1, 2, 3]
        starts = [one["estimated_start"] for one in waiting]
        assert None not in starts
        assert starts == sorted(starts)
        assert (await at.client.delete(running.headers["location"])).json()["state"] == "cancelled"
        for one in waiting:
            assert (await at.look(one["event_id"]))["state"] == "succeeded"


async def test_cancelling_frees_the_slot_and_empties_the_queue(store: StoreConfig) -> None:
    async with stage(store, SLOW) as at:
        runs = await at.submit("Write a long story.", 300)
        waits = await at.submit("Never started.")
        with trio.fail_after(60):
            await at.simulated.wait_for(lambda s: s.tokens_written >= 1)
        for accepted in (waits, runs):
            reply = await at.client.delete(accepted.headers["location"])
            assert reply.json()["state"] == "cancelled"
            assert reply.json()["outcome"]["error"] == "cancelled"
        await until_idle(at.simulated)
        assert at.simulated.observations.aborted_total == 1
        for accepted in (waits, runs):
            assert (await at.look(accepted.json()["event_id"], 0))["state"] == "cancelled"
        after = await at.client.post("/event", json={"content": "next", "max_tokens": 2})
        assert after.status_code == 200


async def test_whoever_waits_for_a_cancelled_event_is_told(store: StoreConfig) -> None:
    async with stage(store, SLOW) as at, trio.open_nursery() as nursery:
        accepted = await at.submit("Write a long story.", 300)
        event_id = accepted.json()["event_id"]
        with trio.fail_after(60):
            await at.simulated.wait_for(lambda s: s.tokens_written >= 1)

        async def poll() -> None:
            with trio.fail_after(60):
                assert (await at.look(event_id))["state"] == "cancelled"

        nursery.start_soon(poll)
        await at.client.delete(f"/event/{event_id}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_client_that_leaves_takes_its_event_along_unless_it_can_come_back(
    store: StoreConfig, stream: bool, keyed: bool
) -> None:
    headers = {"idempotency-key": "story"} if keyed else {}
    async with stage(store, replace(QUICK, tokens_per_second=60)) as at:
        body = {"content": "Write a story.", "max_tokens": 60, "stream": stream}
        send = partial(leave_after, at.client, at.simulated)
        await send(url="/event", json=body, headers=headers)
        if not keyed:
            await until_idle(at.simulated)
            assert at.simulated.observations.aborted_total == 1
            return
        again = await at.client.post("/event", json=body | {"stream": False}, headers=headers)
        assert again.status_code == 200
        assert again.headers["idempotency-replayed"] == "true"
        assert at.simulated.observations.aborted_total == 0
        # It was made once, and a stream that comes late has the whole text.
        assert len(at.simulated.log) == 1
        late = await at.client.post("/event", json=body | {"stream": True}, headers=headers)
        frames = [
            json.loads(line.removeprefix("data: "))
            for line in late.text.splitlines()
            if line.startswith("data: ")
        ]
        text = "".join(frame["delta"] for frame in frames)
        assert text == again.json()["completion"]
        assert len(at.simulated.log) == 1


async def test_an_event_that_somebody_else_waits_for_goes_on(store: StoreConfig) -> None:
    async with stage(store, SLOW) as at, trio.open_nursery() as nursery:
        body = {"content": "Short.", "max_tokens": 12}
        keyed = {"idempotency-key": "shared"}
        answered = trio.Event()

        async def wait() -> None:
            reply = await at.client.post("/event", json=body, headers=keyed)
            assert reply.status_code == 200
            answered.set()

        nursery.start_soon(wait)
        with trio.fail_after(60):
            await at.simulated.wait_for(lambda s: s.running == 1)
        await leave_after(at.client, at.simulated, url="/event", json=body, headers=keyed)
        with trio.fail_after(60):
            await answered.wait()
        assert at.simulated.observations.aborted_total == 0


async def test_a_client_that_leaves_a_batch_takes_along_what_has_not_ended(
    store: StoreConfig,
) -> None:
    async with stage(store, replace(QUICK, tokens_per_second=60)) as at:
        items = [{"content": f"story {number}", "max_tokens": 60} for number in range(3)]
        await leave_after(at.client, at.simulated, url="/events", json=items)
        await until_idle(at.simulated)
        after = await at.client.post("/event", json={"content": "next", "max_tokens": 2})
        assert after.status_code == 200
        # Of the batch nothing was made to its end, though one more may have begun.
        outcomes = [record.outcome for record in at.simulated.log]
        assert outcomes == ["aborted"] * (len(outcomes) - 1) + ["completed"]


@pytest.mark.parametrize("lines", [False, True])
async def test_a_batch_is_answered_in_order_or_as_it_completes(
    store: StoreConfig, lines: bool
) -> None:
    async with stage(store) as at:
        items: list[object] = [{"content": f"ticket {n}", "max_tokens": 2} for n in range(20)]
        items[7] = {"content": 7}
        headers = {"accept": NDJSON} if lines else {}
        reply = await at.client.post("/events", json=items, headers=headers)
        assert reply.status_code == 200
        answers = (
            [json.loads(line) for line in reply.text.splitlines() if line]
            if lines
            else reply.json()
        )
        assert sorted(answer["index"] for answer in answers) == list(range(20))
        assert lines or [answer["index"] for answer in answers] == list(range(20))
        for answer in answers:
            if answer["index"] == 7:
                assert (answer["status"], answer["error"]) == (400, "invalid_input_format")
            else:
                assert answer["status"] == 200
                mark = answer_mark(f"ticket {answer['index']}")
                assert answer["completion"].startswith(mark)
                looked = await at.look(answer["event_id"], 0)
                assert looked["outcome"]["completion"] == answer["completion"]


async def test_a_misspelt_field_is_named_however_the_event_was_handed_over() -> None:
    slip = {"content": "Hello", "maxtokens": 4}
    right = {"content": "Hello", "max_tokens": 4}
    named = ['"maxtokens" is not known and was ignored; did you mean "max_tokens"?']
    async with stage(StoreConfig(url="memory:")) as at:
        for headers in ({}, ASYNC):
            one = await at.client.post("/event", json=slip, headers=headers)
            assert one.json()["warnings"] == named
            many = await at.client.post("/events", json=[right, slip, right], headers=headers)
            assert [answer.get("warnings") for answer in many.json()] == [None, named, None]
        lines = await at.client.post("/events", json=[right, slip], headers={"accept": NDJSON})
        answers = [json.loads(line) for line in lines.text.splitlines() if line]
        assert {answer["index"]: answer.get("warnings") for answer in answers} == {
            0: None,
            1: named,
        }
        stream = await at.client.post("/event", json=slip | {"stream": True})
        frames = [json.loads(line[6:]) for line in stream.text.splitlines() if line[:6] == "data: "]
        assert frames[-1]["warnings"] == named


async def test_a_batch_by_the_thousand_is_kept_in_its_order(store: StoreConfig) -> None:
    async with stage(store) as at:
        runs = await at.submit("Write a long story.", 300)
        body = b"".join(
            json.dumps({"content": f"ticket {n}", "max_tokens": 1}).encode() + b"\n"
            for n in range(1000)
        )
        headers = {"content-type": NDJSON, "idempotency-key": "night", **ASYNC}
        first = (await at.client.post("/events", content=body, headers=headers)).json()
        assert [answer["status"] for answer in first] == [202] * 1000
        assert len({answer["event_id"] for answer in first}) == 1000
        positions = [answer["position"] for answer in first]
        assert positions == list(range(positions[0], positions[0] + 1000))
        again = (await at.client.post("/events", content=body, headers=headers)).json()
        assert [one["event_id"] for one in again] == [one["event_id"] for one in first]
        await at.client.delete(runs.headers["location"])
        assert (await at.look(first[0]["event_id"]))["state"] == "succeeded"
        assert (await at.look(first[999]["event_id"], 0))["state"] == "queued"


async def test_a_batch_sent_again_waits_for_the_events_there_are(store: StoreConfig) -> None:
    async with stage(store) as at:
        items = [{"content": f"ticket {n}", "max_tokens": 2} for n in range(10)]
        keyed = {"idempotency-key": "night"}
        first = (await at.client.post("/events", json=items, headers=ASYNC | keyed)).json()
        again = (await at.client.post("/events", json=items, headers=keyed)).json()
        assert [one["event_id"] for one in again] == [one["event_id"] for one in first]
        assert [one["status"] for one in again] == [200] * 10
        assert len(at.simulated.log) == 10


async def test_the_same_key_for_another_payload_is_a_conflict(store: StoreConfig) -> None:
    async with stage(store) as at:
        await at.submit("one", idempotency_key="k")
        for headers in ({}, ASYNC):
            reply = await at.client.post(
                "/event", json={"content": "two"}, headers=headers | {"idempotency-key": "k"}
            )
            assert (reply.status_code, reply.json()["error"]) == (409, "idempotency_conflict")
        batch = {"idempotency-key": "batch"}
        first = await at.client.post("/events", json=[{"content": "one"}], headers=batch)
        assert first.json()[0]["status"] == 200
        for extra in ({}, ASYNC, {"accept": NDJSON}):
            reply = await at.client.post(
                "/events", json=[{"content": "two"}, {"content": "three"}], headers=batch | extra
            )
            text = reply.text.strip().splitlines() if "accept" in extra else None
            answers = [json.loads(line) for line in text if line] if text else reply.json()
            by_index = {answer["index"]: answer for answer in answers}
            assert (by_index[0]["status"], by_index[0]["event_id"]) == (409, None)
            assert by_index[1]["status"] in (200, 202)


async def test_a_full_queue_refuses_with_a_time_to_come_back(store: StoreConfig) -> None:
    async with stage(replace(store, max_queued=3), SLOW) as at:
        await at.submit("Write a long story.", 300)
        with trio.fail_after(60):
            await at.simulated.wait_for(lambda s: s.running == 1)
        for number in range(3):
            await at.submit(f"waits {number}")
        one = {"content": "one too many"}
        for path, body, headers in (
            ("/event", one, ASYNC),
            ("/event", one, {}),
            ("/event", one | {"stream": True}, {}),
            ("/events", [one], ASYNC),
            ("/events", [one], {}),
            ("/events", [one], {"accept": NDJSON}),
        ):
            reply = await at.client.post(path, json=body, headers=headers)
            assert (reply.status_code, reply.json()["error"]) == (503, "queue_full"), (
                path,
                headers,
            )
            assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("prefer", ["respond-async", "wait=1"])
@pytest.mark.parametrize("number", [1, 3])
async def test_a_full_queue_is_logged_however_the_events_came(
    number: int, prefer: str, store: StoreConfig
) -> None:
    async with stage(replace(store, max_queued=0), SLOW) as at:
        items = [{"content": str(n)} for n in range(number)]
        for _ in range(2):
            body, path = (items[0], "/event") if number == 1 else (items, "/events")
            reply = await at.client.post(path, json=body, headers={"prefer": prefer})
            assert reply.json()["error"] == "queue_full"
        [line] = at.daemon.log("queue_full")
    assert line["refused"] == number


async def test_what_was_accepted_is_still_there_after_a_restart(tmp_path: Path) -> None:
    store = StoreConfig(url=f"sqlite:///{tmp_path}/events.db")
    async with open_simulated_kobold(QUICK) as simulated:
        config = replace(config_for(ServerConfig(name="primary", url=simulated.url)), store=store)
        async with running(config, simulated) as at:
            done = (await at.submit("First.", idempotency_key="first")).json()["event_id"]
            assert (await at.look(done))["state"] == "succeeded"
            simulated.faults.die()
            # Queued with no backend there at all.
            waits = (await at.submit("Second.", idempotency_key="second")).json()["event_id"]
            before = await at.look(done, 0)
            at.daemon.stop()
            with trio.fail_after(60):
                await at.daemon.stopped.wait()
        simulated.faults.start_again()
        async with running(config, simulated) as at:
            assert await at.look(done, 0) == before
            assert (await at.look(waits))["state"] == "succeeded"
            replay = await at.client.post(
                "/event",
                json={"content": "First.", "max_tokens": 4},
                headers={"idempotency-key": "first"},
            )
            assert replay.json() == before["outcome"]
            assert replay.headers["idempotency-replayed"] == "true"


async def test_owners_are_kept_with_their_events(store: StoreConfig) -> None:
    lines = "a:token-of-client-a\nb:token-of-client-b\nops:token-of-client-ops operate"
    auth = AuthConfig(Tokens(Path("/tokens"), parse_tokens(lines)))

    def bearer(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer token-of-client-{name}"}

    async with stage(store, auth=auth) as at:
        reply = await at.client.post(
            "/event", json={"content": "mine"}, headers=ASYNC | bearer("a")
        )
        assert reply.status_code == 202, reply.text
        location = reply.headers["location"]
        statuses = {
            name: (await at.client.get(location, headers=bearer(name))).status_code
            for name in ("a", "b", "ops")
        }
        assert statuses == {"a": 200, "b": 404, "ops": 200}
        assert (await at.client.delete(location, headers=bearer("b"))).status_code == 404
        assert (await at.client.delete(location, headers=bearer("ops"))).status_code == 200
