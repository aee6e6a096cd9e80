"""The daemon is killed at random moments, and nothing it said turns out to be untrue.

``AI_TICKET_CRASH_KILLS=1000`` is the long form; ``AI_TICKET_CRASH_SEED`` repeats a run as far as
chance is ours: what the kernel schedules when is not.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.sqlite.audit import Audit, audit_file
from tests.support.system.crash_house import Client, House, Ledger, crash_house, look

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("AI_TICKET_CRASH_KILLS", "50"))
SEED = int(os.environ.get("AI_TICKET_CRASH_SEED", random.randrange(2**32)))
CLIENTS = 6


def in_order(house: House) -> Audit:
    found = audit_file(house.store)
    assert found.problems == (), str(found)
    return found


async def live_and_die(house: House, chance: random.Random) -> None:
    """Start the daemon and kill it at a random moment, a quarter of them while it starts."""
    work = False
    if house.store.exists() and house.store.stat().st_size:
        found = in_order(house)
        work = found.states[EventState.QUEUED] + found.states[EventState.RUNNING] > 0
    async with trio.open_nursery() as nursery:
        await house.spawn()
        if house.store.exists() and chance.random() < 0.25:
            with trio.move_on_after(chance.uniform(0, 0.7)):
                await house.started(nursery)
        else:
            await house.started(nursery)
            if work and chance.random() < 0.7:
                await house.first_claim()
                in_order(house)
            await trio.sleep(chance.uniform(0, 0.6))
        await house.kill()


# A client that is cut off while it sends leaves httpx's generator of the body to the collector.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
async def test_no_event_is_lost_and_no_result_changes_while_the_daemon_is_killed(
    tmp_path: Path,
) -> None:
    print(f"seed {SEED}, {KILLS} kills")
    chance = random.Random(SEED)
    ledger = Ledger()
    with trio.fail_after(300 + 20 * KILLS):
        async with crash_house(tmp_path) as house, trio.open_nursery() as daemons:
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    seed = chance.randrange(2**32)
                    client = Client(house, ledger, random.Random(seed), f"client-{number}")
                    clients.start_soon(client.run)
                for _ in range(KILLS):
                    await live_and_die(house, chance)
                house.send_clients_home()
            in_order(house)
            await house.spawn()
            await house.started(daemons)
            async with httpx.AsyncClient(base_url=house.url, timeout=60) as http:
                for event_id in ledger.accepted:  # those that were seen to end, too
                    await look(http, ledger, event_id, 30)
            assert ledger.open == []
            await house.idle()  # the events of clients that got no answer have ended, too
            assert await house.stop() == 0
            found = in_order(house)
    assert found.states[EventState.QUEUED] == found.states[EventState.RUNNING] == 0
    assert found.accepted >= len(ledger.accepted)
    slowest = max(house.first_claims, default=0.0)
    print(
        f"{len(ledger.accepted)} acknowledged, {found.accepted} accepted; first claim after "
        f"{slowest:.3f} s at most, in {len(house.first_claims)} starts\n{found}"
    )
    assert len(ledger.accepted) > 2 * KILLS  # fewer come in on a busy host
    assert len(house.first_claims) >= KILLS // 10  # only some kills leave events that wait
