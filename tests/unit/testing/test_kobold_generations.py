"""Timing and abort traps of the requests that need the lock, without sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from ai_ticket_daemon.testing.kobold import KoboldSettings, Observations, answer_mark
from ai_ticket_daemon.testing.kobold.endpoints import answer_get, answer_lock_free_post
from ai_ticket_daemon.testing.kobold.faults import Faults
from ai_ticket_daemon.testing.kobold.generations import serve_locked_post
from ai_ticket_daemon.testing.kobold.process import ServerProcess
from ai_ticket_daemon.testing.kobold.wire import ClientGone, Connection, Request

if TYPE_CHECKING:
    from trio.testing import MockClock

SETTINGS = KoboldSettings(
    tokens_per_second=10, prompt_seconds=0.0, overtake=False, natural_tokens=(500, 500)
)


class NoProcess:
    def kill(self, *, reset: bool) -> None:
        raise AssertionError

    def stop_listening(self) -> None:
        raise AssertionError

    def start(self, *, after_seconds: float = 0.0) -> None:
        raise AssertionError

    def reload(self, *, model: bool) -> None:
        raise AssertionError


class Client(Connection):
    """A connection that keeps what it is sent, and when; it can go away."""

    __slots__ = ("closed_at", "gone", "sent")

    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self.gone = False
        self.closed_at: float | None = None

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise ClientGone
        self.sent.append((trio.current_time(), data))

    @property
    def text(self) -> str:
        return b"".join(data for _, data in self.sent).decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text.partition("\r\n\r\n")[2])


class Server:
    def __init__(self, settings: KoboldSettings) -> None:
        self.observations = Observations(100)
        self.faults = Faults(NoProcess(), self.observations.changed)
        self.process = ServerProcess(settings, self.faults, self.observations)

    async def post(self, client: Client, path: str = "/api/v1/generate", **body: Any) -> Client:
        data = json.dumps({"prompt": "x", **body}).encode()
        await serve_locked_post(self.process, client, Request("POST", path, {}, b""), data)
        client.closed_at = trio.current_time()
        return client

    async def abort(self, genkey: str = "") -> tuple[str, str]:
        request = Request("POST", "/api/extra/abort", {}, b"")
        body = json.dumps({"genkey": genkey}).encode()
        answer = await answer_lock_free_post(self.process, request, body)
        result = json.loads(answer.partition(b"\r\n\r\n")[2])
        return result["success"], result["done"]

    def perf(self) -> dict[str, Any]:
        answer = answer_get(self.process, Request("GET", "/api/extra/perf", {}, b""))
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


@pytest.fixture
async def server() -> Server:
    return Server(SETTINGS)


async def test_a_plain_answer_holds_the_lock_a_little_longer(
    server: Server, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    client = await server.post(Client(), max_length=10)
    assert client.sent[0][0] - started == pytest.approx(1.0)
    assert client.closed_at is not None
    assert client.closed_at - started == pytest.approx(1.05)


async def test_a_stream_sends_its_headers_at_once_and_its_first_event_later(
    server: Server, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    client = await server.post(Client(), "/v1/completions", max_tokens=10, stream=True)
    times = [at - started for at, _ in client.sent]
    assert times[0] == 0
    assert times[1] == pytest.approx(0.35, abs=0.001)
    assert times[-1] == pytest.approx(1.0, abs=0.03)
    assert client.closed_at is not None
    assert client.closed_at - started == pytest.approx(times[-1] + 0.2)
    assert client.sent[-1][1] == b"data: [DONE]"


async def test_a_whole_short_stream_lasts_more_than_half_a_second(
    server: Server, autojump_clock: MockClock
) -> None:
    started = trio.current_time()
    client = await server.post(Client(), "/api/extra/generate/stream", max_length=1)
    assert client.closed_at is not None
    assert client.closed_at - started == pytest.approx(0.55)


async def test_the_next_one_gets_the_lock_after_the_hold(
    server: Server, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.post, Client())
        await trio.sleep(0.1)
        assert (server.perf()["idle"], server.perf()["queue"]) == (0, 0)
        second = Client()
        nursery.start_soon(server.post, second)
        await trio.sleep(0.1)
        assert (server.perf()["idle"], server.perf()["queue"]) == (0, 1)
    first_record, second_record = server.observations.log
    assert first_record.ended == second_record.started
    assert server.perf()["idle"] == 1
    assert server.perf()["total_gens"] == 2


async def test_an_abort_before_the_lock_with_nobody_waiting_is_lost(
    server: Server, autojump_clock: MockClock
) -> None:
    assert await server.abort("K") == ("false", "false")
    client = await server.post(Client(), genkey="K", max_length=5)
    assert client.json["results"][0]["text"] != ""


async def test_an_abort_with_the_last_key_succeeds_though_nothing_runs(
    server: Server, autojump_clock: MockClock
) -> None:
    await server.post(Client(), genkey="K", max_length=2)
    assert await server.abort("K") == ("true", "true")
    client = await server.post(Client(), genkey="K", max_length=5)
    assert client.json["results"][0]["text"] != ""


async def test_a_keyless_abort_ends_whatever_runs(
    server: Server, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        client = Client()
        nursery.start_soon(lambda: server.post(client, genkey="K", max_length=300))
        await trio.sleep(0.55)
        assert await server.abort() == ("true", "true")
    assert client.json["results"][0]["text"].startswith(answer_mark("x"))
    assert client.json["results"][0]["finish_reason"] == "length"
    assert server.observations.log[-1].tokens == 5


async def test_only_the_latest_key_is_remembered_and_it_outlives_the_queue(
    server: Server, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for key in ("H", "W"):
            nursery.start_soon(partial(server.post, Client(), genkey=key, max_length=5))
            await trio.testing.wait_all_tasks_blocked()
        assert await server.abort("one") == ("true", "false")
        assert await server.abort("two") == ("true", "false")
        assert await server.abort() == ("false", "false")
    await trio.sleep(3600)

    async def text_for(key: str) -> str:
        client = await server.post(Client(), genkey=key, max_length=5)
        return str(client.json["results"][0]["text"])

    assert await text_for("one") != ""
    assert await text_for("two") == ""
    assert await text_for("two") != ""
    assert server.perf()["total_gens"] == 4


async def test_a_stream_aborted_while_waiting_shows_the_previous_text(
    server: Server, autojump_clock: MockClock
) -> None:
    stale = Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: server.post(Client(), prompt="secret", max_length=9))
        await trio.sleep(0.1)
        nursery.start_soon(lambda: server.post(stale, "/v1/completions", genkey="K", stream=True))
        await trio.sleep(0.1)
        assert await server.abort("K") == ("true", "false")
    assert answer_mark("secret") in stale.text
    assert server.observations.log[-1].outcome == "skipped"


async def test_a_plain_request_whose_client_has_gone_is_generated_in_full(
    server: Server, autojump_clock: MockClock
) -> None:
    client = Client()
    client.gone = True
    await server.post(client, max_length=30)
    record = server.observations.log[-1]
    assert (record.outcome, record.tokens, record.client_gone) == ("completed", 30, True)


async def test_a_stream_whose_client_has_gone_is_aborted_at_the_next_write(
    server: Server, autojump_clock: MockClock
) -> None:
    client = Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: server.post(client, "/v1/completions", stream=True))
        await trio.sleep(1)
        client.gone, left = True, trio.current_time()
    record = server.observations.log[-1]
    assert (record.outcome, record.client_gone) == ("aborted", True)
    assert client.closed_at is not None
    assert client.closed_at - left == pytest.approx(0.45, abs=0.11)


async def test_idletime_counts_from_the_moment_a_request_got_the_lock(
    server: Server, autojump_clock: MockClock
) -> None:
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: server.post(Client(), max_length=100))
        await trio.sleep(4)
        assert server.perf()["idletime"] == pytest.approx(4)
        assert server.perf()["uptime"] == pytest.approx(14)


async def test_a_wrong_password_is_told_only_after_the_lock_and_resets_idletime(
    autojump_clock: MockClock,
) -> None:
    server = Server(replace(SETTINGS, password="secret"))
    await trio.sleep(10)
    client = await server.post(Client())
    assert client.text.startswith("HTTP/1.0 401 ")
    assert server.perf()["idletime"] == pytest.approx(0.05)


async def test_a_prompt_above_the_context_loses_its_beginning(
    autojump_clock: MockClock,
) -> None:
    server = Server(replace(SETTINGS, reply="echo", context_tokens=64))
    long_prompt = "".join(f" {'abcdefghij'[i % 10]}" for i in range(100))
    client = await server.post(Client(), prompt=long_prompt, max_length=4)
    room = 64 - 4 - 1
    assert client.json["results"][0]["text"] == long_prompt[-2 * room :][:8]
    assert server.observations.log[-1].prompt_tokens == 60


@pytest.mark.parametrize(("stop_reason", "words"), [(0, 5), (1, 500)])
async def test_perf_tells_the_end_of_the_text_from_the_limit(
    stop_reason: int, words: int, autojump_clock: MockClock
) -> None:
    server = Server(replace(SETTINGS, natural_tokens=(10, 10)))
    client = await server.post(Client(), max_length=words)
    assert server.perf()["stop_reason"] == stop_reason
    assert client.json["results"][0]["finish_reason"] == ("stop" if stop_reason else "length")


async def test_lock_time_and_useful_time_are_counted_apart(
    server: Server, autojump_clock: MockClock
) -> None:
    await server.post(Client(), max_length=10)
    await server.post(Client(), rep_pen="bad")
    assert server.observations.busy_seconds == pytest.approx(1.0)
    assert server.observations.held_seconds == pytest.approx(1.10)
