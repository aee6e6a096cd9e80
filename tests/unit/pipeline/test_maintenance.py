"""What is done for events that no worker has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.errors import (
    ErrorCode,
)
from ai_ticket_daemon.events.outcome import Succeeded
from ai_ticket_daemon.store.memory import MemoryStore
from tests.support.pipeline_house import event, running

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.events.state import EventState
    from ai_ticket_daemon.store.port import Lease


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


class SlowToAnswer(MemoryStore):
    """A store that has written an outcome long before it says so."""

    async def complete(self, lease: Lease, state: EventState, outcome: Outcome, now: float) -> bool:
        written = await super().complete(lease, state, outcome, now)
        await trio.sleep(2 * StoreConfig().lease_seconds)
        return written


async def test_a_lease_that_was_given_back_with_the_outcome_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    async with running(store=SlowToAnswer(max_queued=lambda: 10)) as house:
        [outcome] = await house.pipeline.run_batch([event("hello")])
        assert isinstance(outcome, Succeeded)
        assert house.ends.leases_lost == []
