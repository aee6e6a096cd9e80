"""Whenever the power is cut, the file opens, is whole, and holds all that was promised.

``AI_TICKET_POWER_CUT_SEED`` repeats a run; its seed is in the message of a failure.
"""

from __future__ import annotations

import os
import random
import shutil
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import apsw
import trio

from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.store.sqlite import checkpointer
from ai_ticket_daemon.store.sqlite.audit import audit
from ai_ticket_daemon.store.sqlite.statements.queries import get
from tests.support.store.power_cut import RecordedLog, power_cuts
from tests.support.store.store_support import BROKEN, DONE, event, gone, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.store.sqlite.store import SqliteStore

SEED = int(os.environ.get("AI_TICKET_POWER_CUT_SEED", random.randrange(2**32)))
CUTS = 300
SHARE = 0.05
"""Of the writes to the files, how many are followed by a moment at which cuts are tried."""

ENDS: tuple[tuple[EventState, Outcome], ...] = (
    (EventState.SUCCEEDED, DONE),
    (EventState.FAILED, BROKEN),
)

Promise = tuple[str, EventState | None, "Outcome | None"]
"""What a client was told: that an event was accepted (state None), or how it ended."""


async def work(store: SqliteStore, chance: random.Random, name: str, told: list[Promise]) -> None:
    """Submit, run and cancel events, one after the other; note what is promised."""
    waiting: list[str] = []
    for number in range(25):
        batch = [event(f"{name}-{number}-{n}", "x" * chance.randrange(500)) for n in
                 range(chance.choice([1, 1, 1, 10]))]  # fmt: skip
        for receipt in await store.submit(batch, owned=chance.random() < 0.5):
            told.append((receipt.event_id, None, None))
            waiting.append(receipt.event_id)
        for _ in range(chance.randrange(6)):
            lease = await store.claim(1, backend="primary", until=30)
            if lease is None:
                break
            if chance.random() < 0.3:
                await store.release(lease, due_at=0, attempts=DONE.attempts)
                continue
            state, outcome = chance.choice(ENDS)
            if await store.complete(lease, state, outcome, 2):
                told.append((lease.event.event_id, state, outcome))
        if chance.random() < 0.3:
            event_id = chance.choice(waiting)
            cancelled = await store.cancel(event_id, 2, gone)
            assert cancelled is not None
            told.append((event_id, cancelled[1].state, cancelled[1].outcome))


def check(path: Path, promises: Sequence[Promise]) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.pragma("integrity_check") == "ok"
        if connection.pragma("user_version") == 0:
            assert not promises
            return
        assert audit(connection).problems == ()
        for event_id, state, outcome in promises:
            record = get(connection, event_id)
            assert record is not None, f"{event_id} was accepted and is gone"
            if state is not None:
                assert (record.state, record.outcome) == (state, outcome)


async def test_a_power_cut_takes_back_nothing_that_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "LONG_PAGES", 60)  # that is several times in this run
    told: list[Promise] = []
    path = tmp_path / "store" / "events.db"
    with power_cuts("power-cut", SEED, share=SHARE) as cuts:
        cuts.promised = lambda: len(told)
        chance = random.Random(SEED)
        log = RecordedLog(path, cuts)
        for life in range(2):  # the second one begins with what the first one left
            async with opened(path, vfs="power-cut", log=log) as store, trio.open_nursery() as many:
                for worker in range(4):
                    seed = chance.randrange(2**32)
                    many.start_soon(work, store, random.Random(seed), f"{life}-{worker}", told)
        moments = cuts.moments
    checkpoints = [m for m in moments if m.files.get("events.db") and m.files["events.db"].pending]
    for number in range(CUTS):
        moment = chance.choice(checkpoints if number % 4 == 0 else moments)
        copy = moment.materialise(tmp_path / str(number), chance)
        try:
            check(copy, told[: moment.promised])
        except (AssertionError, apsw.Error) as error:
            error.add_note(f"seed {SEED}, cut {number}, {moment.promised} promises, {copy}")
            raise
        shutil.rmtree(copy.parent)
    assert len(moments) > 100
    assert len({moment.promised for moment in moments}) > 50
    assert len(checkpoints) > 10


async def test_writes_that_wait_together_share_one_sync(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with power_cuts("counting", 0, share=0) as cuts:
        async with opened(path, vfs="counting", log=RecordedLog(path, cuts)) as store:
            before = cuts.syncs
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(partial(store.submit, [event(str(number))], owned=False))
            assert 1 <= cuts.syncs - before <= 3
            before = cuts.syncs
            await store.submit([event("alone")], owned=False)
            assert cuts.syncs - before == 1
            before = cuts.syncs
            assert await store.claim(1, backend="primary", until=30) is not None
            assert cuts.syncs == before
