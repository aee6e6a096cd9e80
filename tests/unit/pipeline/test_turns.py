"""What recent turns tell of the next ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.status import EventStatus
from tests.support.pipeline_house import event, running

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_the_start_is_estimated_from_how_long_events_took(autojump_clock: MockClock) -> None:
    async with running() as house:
        await house.pipeline.run_batch([event("measure")])
        await house.pipeline.enqueue([event(str(n)) for n in range(5)])
        await trio.sleep(0.1)
        [status] = await house.pipeline.enqueue([event("last")])
        assert isinstance(status, EventStatus)
        assert status.position == 5
        now = trio.current_time()
        assert status.estimated_start_at == pytest.approx(now + 5, abs=0.2)
        await trio.sleep(2)
        later = await house.pipeline.status("id-last")
        assert later is not None
        assert later.position == 3


async def test_before_the_first_turn_has_ended_the_speed_of_the_server_is_what_is_known(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        [unknown] = await house.pipeline.enqueue([event("first")])
        assert isinstance(unknown, EventStatus)
        assert unknown.estimated_start_at is None
        [backend] = house.pool
        speed = ProbeResult(
            "fake",
            prompt_tokens_per_second=256.0,
            written_tokens_per_second=128.0,
            last_prompt_tokens=512,
        )
        house.pool.probed(backend, speed)
        await house.pipeline.enqueue([event("second")])
        [status] = await house.pipeline.enqueue([event("third")])
        assert isinstance(status, EventStatus)
        assert status.position is not None
        free = 0 if house.pipeline.in_flight else 1
        expected = (status.position - free) * (512 / 256.0 + 256 / 128.0)
        assert status.estimated_start_at == pytest.approx(trio.current_time() + expected, abs=0.2)


async def test_who_finds_the_queue_full_before_that_is_told_when_to_come_by_the_same(
    autojump_clock: MockClock,
) -> None:
    async with running(max_queued=1) as house:
        [backend] = house.pool
        house.pool.probed(backend, ProbeResult("fake", written_tokens_per_second=2.0))
        house.primary.seconds = 100.0
        await house.pipeline.enqueue([event("runs")])
        await trio.sleep(1)
        await house.pipeline.enqueue([event("waits")])
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(event("comes"))
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert refused.value.retry_after_seconds == 256 / 2.0
