from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.server.answers import HEARTBEAT, delta_frame
from ai_ticket_daemon.server.handlers.streaming import Pulse, relay_deltas
from ai_ticket_daemon.testing.pipeline import ScriptedEvent, ScriptedSubmission, succeeded

if TYPE_CHECKING:
    from trio.testing import MockClock

EVENT = Event("id", (Message(Role.USER, "a"),), Sampling(), 0.0, 1.0)


async def test_heartbeats_fill_the_silences_and_nothing_else(autojump_clock: MockClock) -> None:
    submission = ScriptedSubmission(ScriptedEvent(EVENT))
    begun_at = trio.current_time()
    written: list[tuple[float, bytes]] = []

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        written.append((round(trio.current_time() - begun_at, 3), data))

    async def backend() -> None:
        await trio.sleep(25)
        submission.say("a")
        await trio.sleep(9)
        submission.say("b")
        await trio.sleep(11)
        submission.end(succeeded())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend)
        outcome = await relay_deltas(submission, write, heartbeat_seconds=10)

    assert outcome == succeeded()
    assert written == [
        (0, HEARTBEAT),
        (10, HEARTBEAT),
        (20, HEARTBEAT),
        (25, delta_frame("a")),
        (34, delta_frame("b")),
        (44, HEARTBEAT),
    ]


async def test_a_failed_write_ends_the_relay(autojump_clock: MockClock) -> None:
    submission = ScriptedSubmission(ScriptedEvent(EVENT))
    submission.say("a")

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if data != HEARTBEAT:
            raise trio.BrokenResourceError

    with pytest.raises(ExceptionGroup) as caught:
        await relay_deltas(submission, write, heartbeat_seconds=10)
    assert caught.value.subgroup(trio.BrokenResourceError) is not None


async def test_a_heartbeat_never_comes_into_a_write(autojump_clock: MockClock) -> None:
    written: list[tuple[float, bytes]] = []
    writers = 0
    begun_at = trio.current_time()

    async def write(data: bytes) -> None:
        nonlocal writers
        writers += 1
        assert writers == 1
        await trio.sleep(2.5)
        written.append((round(trio.current_time() - begun_at, 3), data))
        writers -= 1

    pulse = Pulse(write, b"beat", 1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulse.write, b"first")
        # Begins before the first write has ended, and once before it has begun.
        nursery.start_soon(pulse.beat, 0.5)
        await trio.sleep(7.5)
        nursery.cancel_scope.cancel()
    assert written == [(2.5, b"first"), (6.0, b"beat")]


async def test_the_first_heartbeat_can_be_put_off(autojump_clock: MockClock) -> None:
    times: list[float] = []
    begun_at = trio.current_time()

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        times.append(round(trio.current_time() - begun_at, 3))

    pulse = Pulse(write, b"beat", 10.0)
    with trio.move_on_after(25):
        assert not pulse.has_begun
        await pulse.beat(1.5)
    assert pulse.has_begun
    assert times == [1.5, 11.5, 21.5]
