"""Both event stores, for the tests of what each of them promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.store.memory import MemoryStore
from tests.support.store.store_support import Limit, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ai_ticket_daemon.store.port import EventStore


@pytest.fixture
def limit() -> Limit:
    return Limit()


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, limit: Limit
) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryStore(max_queued=lambda: limit.max_queued)
    else:
        async with opened(tmp_path / "events.db", max_queued=lambda: limit.max_queued) as sqlite:
            yield sqlite
