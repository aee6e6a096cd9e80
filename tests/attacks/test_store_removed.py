"""The store's file is taken away and put back while clients are told that their events are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ai_ticket_daemon.store.sqlite.audit import audit_file
from tests.support.attacks.attacked_daemon import attacked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.attacks.attacked_daemon import AttackedDaemon

pytestmark = pytest.mark.system

ROUNDS = 4
CLIENTS = 8
ACKNOWLEDGED_EACH_ROUND = 40
PATIENCE_SECONDS = 60


class Crowd:
    """Clients that hand events over as fast as they are taken, and remember what they were told."""

    def __init__(self, daemon: AttackedDaemon) -> None:
        self.daemon = daemon
        self.acknowledged: list[str] = []
        self.refused = 0
        self.over = False

    async def submit(self) -> None:
        body = {"content": "a ticket", "max_tokens": 2, "timeout_seconds": 3000}
        wish = {"prefer": "respond-async"}
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
            while not self.over:
                answer = await client.post(f"{self.daemon.url}/event", json=body, headers=wish)
                if answer.status_code == 202:
                    self.acknowledged.append(answer.json()["event_id"])
                else:
                    assert answer.json()["error"] == "store_unavailable", answer.text
                    self.refused += 1

    async def more(self, number: int) -> None:
        """Return when so many more events were acknowledged."""
        wanted = len(self.acknowledged) + number
        with trio.fail_after(PATIENCE_SECONDS):
            while len(self.acknowledged) < wanted:  # noqa: ASYNC110 - the clients go on by themselves
                await trio.sleep(0.005)

    async def turned_away(self) -> None:
        """Return when the daemon refuses events."""
        before = self.refused
        with trio.fail_after(PATIENCE_SECONDS):
            while self.refused == before:  # noqa: ASYNC110 - as above
                await trio.sleep(0.005)


@pytest.mark.parametrize("deed", ["moved", "deleted", "log deleted"])
async def test_no_event_that_was_acknowledged_is_lost_when_the_file_was_away(
    tmp_path: Path, deed: str
) -> None:
    settings = ["store.max_queued = 1000000"]
    async with attacked(tmp_path, *settings) as daemon:
        crowd, store, away = Crowd(daemon), daemon.store, tmp_path / "away"
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(crowd.submit)
            for _ in range(ROUNDS):
                await crowd.more(ACKNOWLEDGED_EACH_ROUND)
                if deed == "moved":
                    store.rename(away)
                elif deed == "deleted":
                    away.hardlink_to(store)  # what a tool for deleted files would find again
                    store.unlink()
                else:
                    store.with_name(f"{store.name}-wal").unlink()
                    continue
                await crowd.turned_away()
                away.rename(store)
            await crowd.more(ACKNOWLEDGED_EACH_ROUND)
            crowd.over = True
        assert len(crowd.acknowledged) >= (ROUNDS + 1) * ACKNOWLEDGED_EACH_ROUND
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
            for event_id in crowd.acknowledged:
                found = await client.get(f"{daemon.url}/event/{event_id}")
                assert found.status_code == 200, f"{event_id} is lost: {found.text}"
        await daemon.stop()
        assert audit_file(store).problems == ()
