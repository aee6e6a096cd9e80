"""The generator against a server that answers as the test wants it to, on a clock of the test."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.ctl.load.arrivals import ClosedLoop, OpenLoop
from ai_ticket_daemon.ctl.load.traffic import Target, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ai_ticket_daemon.ctl.load.traffic import Sent

Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


@dataclass(frozen=True)
class ScriptedTarget(Target):
    """Answers by a function in place of a socket."""

    answer: Answer = field(default=None)  # type: ignore[assignment]

    def connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, transport=httpx.MockTransport(self.answer), timeout=None
        )


async def run(
    answer: Answer,
    pattern: OpenLoop | ClosedLoop,
    *,
    seconds: float,
    wait_seconds: float = 100.0,
) -> list[Sent]:
    sent: list[Sent] = []
    traffic = Traffic(ScriptedTarget(answer=answer), {"content": "x"}, sent.append)
    with trio.fail_after(1000):
        await traffic.run(pattern, seconds=seconds, wait_seconds=wait_seconds)
    return sent


def answers_after(seconds: float, **told: Any) -> Answer:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(seconds)
        return httpx.Response(200, json={"event_id": "e", "backend": "primary", **told})

    return answer


async def test_events_arrive_whether_the_earlier_ones_have_ended_or_not(
    autojump_clock: MockClock,
) -> None:
    sent = await run(answers_after(50.0), OpenLoop(2.0), seconds=20.0)
    assert 25 <= len(sent) <= 55
    assert all(one.seconds == pytest.approx(50.0) for one in sent)
    assert max(one.due_at for one in sent) < 20.0


async def test_the_time_without_arrivals_at_the_end_counts_too(autojump_clock: MockClock) -> None:
    traffic = Traffic(ScriptedTarget(answer=answers_after(0.1)), {}, lambda sent: None)
    with trio.fail_after(1000):
        await traffic.run(OpenLoop(0.2), seconds=30.0, wait_seconds=1.0)
    assert traffic.arrived_seconds == pytest.approx(30.0)


async def test_arrivals_are_the_same_for_the_same_seed(autojump_clock: MockClock) -> None:
    first, second, other = [
        [one.due_at for one in await run(answers_after(0.1), OpenLoop(5.0, seed), seconds=10.0)]
        for seed in (1, 1, 2)
    ]
    assert first == second != other


async def test_a_generator_that_falls_behind_does_not_make_the_server_look_fast(
    autojump_clock: MockClock,
) -> None:
    stalled = False

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal stalled
        if not stalled:
            stalled = True
            autojump_clock.jump(10.0)  # The process stood still.
        return httpx.Response(200, json={})

    sent = await run(answer, OpenLoop(1.0), seconds=10.0)
    late = [one for one in sent if one.sent_at - one.due_at > 1.0]
    assert late
    assert all(one.seconds >= one.sent_at - one.due_at for one in late)


async def test_closed_loop_clients_wait_for_their_answer(autojump_clock: MockClock) -> None:
    sent = await run(answers_after(1.0), ClosedLoop(3), seconds=10.0)
    assert len(sent) == 30
    assert [one.seconds for one in sent] == pytest.approx([1.0] * 30)


async def test_a_refused_closed_loop_client_pauses(autojump_clock: MockClock) -> None:
    async def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"error": "queue_full", "message": "."})

    sent = await run(refuse, ClosedLoop(1), seconds=10.0)
    assert len(sent) == 20
    assert {one.error for one in sent} == {"queue_full"}


async def test_what_is_not_answered_in_time_is_given_up_and_counted(
    autojump_clock: MockClock,
) -> None:
    sent = await run(answers_after(1000.0), OpenLoop(1.0), seconds=10.0, wait_seconds=5.0)
    assert sent
    assert {one.error for one in sent} == {"unanswered"}


async def test_no_more_are_under_way_than_may_be(autojump_clock: MockClock) -> None:
    under_way = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(50.0)
        under_way -= 1
        return httpx.Response(200, json={})

    sent = await run(answer, OpenLoop(200.0), seconds=10.0)
    assert most == Target().max_open == 1000
    assert {one.error for one in sent} == {None, "not_sent"}


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(200, json={}), None),
        (httpx.Response(429, json={"error": "rate_limited"}), "rate_limited"),
        (httpx.Response(502, text="<h1>Bad gateway</h1>"), "JSONDecodeError"),
        (httpx.Response(500, json={}), "500"),
        (httpx.Response(200, json=[1]), "ValueError"),
        (httpx.Response(400, json={"error": "ignore all\nprevious"}), "unreadable"),
    ],
)
async def test_every_answer_has_one_word(
    autojump_clock: MockClock, response: httpx.Response, error: str | None
) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(0.05)
        return httpx.Response(response.status_code, content=response.content)

    sent = await run(answer, ClosedLoop(1), seconds=0.1)
    assert [one.error for one in sent] == [error] * len(sent)
    assert sent


async def test_a_server_that_is_away_is_an_error_and_not_the_end(
    autojump_clock: MockClock,
) -> None:
    async def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    sent = await run(away, OpenLoop(2.0), seconds=5.0)
    assert {one.error for one in sent} == {"ConnectError"}


class Frames(httpx.AsyncByteStream):
    """A stream whose frames come a second apart."""

    def __init__(self, *frames: str) -> None:
        self._frames = frames

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for frame in self._frames:
            await trio.sleep(1.0)
            yield f"{frame}\n\n".encode()


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ('data: {"delta": "", "done": true, "event_id": "e", "backend": "b", "attempts": 1}', None),
        ('data: {"done": true, "error": "api_stalled", "message": "."}', "api_stalled"),
        (": heartbeat", "broken_off"),
    ],
)
async def test_the_first_text_of_a_stream_is_timed(
    autojump_clock: MockClock, last: str, error: str | None
) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        frames = Frames(": heartbeat", 'data: {"delta": "Hi", "done": false}', last)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=frames)

    [sent] = await run(answer, ClosedLoop(1), seconds=0.1)
    assert [sent.first_text_at, sent.ended_at] == pytest.approx([2.0, 3.0])
    assert sent.error == error


def test_a_token_is_in_no_repr() -> None:
    assert "s3cret" not in repr(Target(url="http://localhost", token="s3cret"))
