from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.server.answers import HEARTBEAT, delta_frame
from ai_ticket_daemon.server.streaming import relay_deltas
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
