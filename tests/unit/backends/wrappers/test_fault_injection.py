from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.failure import BackendError, HealthEvent
from ai_ticket_daemon.backends.generation import GenerationRequest, GenerationResult, ProbeResult
from ai_ticket_daemon.backends.wrappers.fault_injection import (
    LONGEST_SECONDS,
    FaultInjectingClient,
    FaultInjection,
)
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

REQUEST = GenerationRequest((Message(Role.USER, "hi"),), Sampling(max_tokens=4), stream=True)
RESULT = GenerationResult("text", "stop", Usage(1, 1))


class SlowClient:
    """Gives a piece of text at once and the rest after ten seconds; notes how it ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = 0

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        try:
            if on_delta is not None:
                on_delta("te")
            await trio.sleep(10)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return RESULT

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        return ProbeResult("model")

    async def wake(self) -> bool:
        raise AssertionError

    def doubt(self) -> None: ...

    async def aclose(self) -> None: ...


class Stage:
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.others_usable = True
        self.fault_injection = FaultInjection(
            others_usable=lambda names: self.others_usable, on_end=self.ended.append
        )
        self.inner = SlowClient("primary")
        self.primary = FaultInjectingClient(self.inner, self.fault_injection)
        self.standby = FaultInjectingClient(SlowClient("standby"), self.fault_injection)


async def test_what_is_not_isolated_is_left_alone(autojump_clock: MockClock) -> None:
    stage = Stage()
    pieces: list[str] = []
    assert await stage.primary.generate(REQUEST, pieces.append) is RESULT
    assert (await stage.primary.probe()).model == "model"
    assert pieces == ["te"]
    assert (stage.fault_injection.left_seconds, stage.fault_injection.names) == (0.0, frozenset())


async def test_a_server_that_is_isolated_refuses_and_its_requests_are_lost(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    seen: list[BackendError] = []

    async def generate(passing: list[str] | None) -> None:
        with pytest.raises(BackendError) as raised:
            await stage.primary.generate(REQUEST, None if passing is None else passing.append)
        seen.append(raised.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(generate, None)
        nursery.start_soon(generate, [])
        nursery.start_soon(stage.standby.generate, REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        stage.fault_injection.isolate({"primary"}, 60)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.inner.cancelled == 2
    assert {error.failure.health_event for error in seen} == {HealthEvent.LOST}
    # What a client was given a part of cannot be tried elsewhere.
    assert len({error.failure.retry for error in seen}) == 2

    for call in (stage.primary.generate(REQUEST), stage.primary.probe()):
        with pytest.raises(BackendError) as refused:
            await call
        assert refused.value.code is ErrorCode.API_CONNECTION_ERROR
    assert (await stage.standby.probe()).model == "model"


async def test_it_ends_in_time_with_nobody_there_to_end_it(autojump_clock: MockClock) -> None:
    stage = Stage()
    stage.fault_injection.isolate({"primary"}, 30)
    await trio.sleep(29.9)
    assert stage.fault_injection.names == {"primary"}
    assert stage.fault_injection.left_seconds == pytest.approx(0.1)
    await trio.sleep(0.2)
    assert (await stage.primary.probe()).model == "model"
    assert stage.ended == ["its time is over"]


async def test_it_never_lasts_longer_than_the_longest_time(autojump_clock: MockClock) -> None:
    stage = Stage()
    stage.fault_injection.isolate({"primary"}, 1e9)
    assert stage.fault_injection.left_seconds == LONGEST_SECONDS


async def test_it_ends_when_no_other_server_is_usable_any_more() -> None:
    stage = Stage()
    stage.fault_injection.isolate({"primary"}, 30)
    stage.others_usable = False
    assert (await stage.primary.probe()).model == "model"
    assert stage.ended == ["no other server is usable"]


async def test_it_is_ended_once() -> None:
    stage = Stage()
    stage.fault_injection.rejoin("nothing to rejoin")
    stage.fault_injection.isolate({"primary"}, 30)
    stage.fault_injection.rejoin("asked")
    stage.fault_injection.rejoin("asked again")
    assert stage.ended == ["asked"]


async def test_a_caller_that_leaves_is_still_cancelled(autojump_clock: MockClock) -> None:
    stage = Stage()
    with trio.move_on_after(1) as scope:
        await stage.primary.generate(REQUEST)
    assert scope.cancelled_caught
