"""What is done for events that no worker has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import (
    ErrorCode,
)
from ai_ticket_daemon.events.outcome import Succeeded
from tests.support.pipeline_house import event, running

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_an_event_whose_worker_crashed_is_run_again(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.pipeline.pause()
        await house.pipeline.enqueue([event("orphan")])
        assert await house.store.claim(trio.current_time()) is not None
        house.pipeline.unpause()
        await trio.sleep(StoreConfig().lease_seconds)
        status = await house.pipeline.status("id-orphan")
    assert status is not None
    assert isinstance(status.outcome, Succeeded)
    assert [attempt.error for attempt in status.attempts] == [ErrorCode.INTERNAL_ERROR, None]
