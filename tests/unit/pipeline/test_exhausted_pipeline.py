"""Events on a host that is out of something: none is lost, and no server is to blame."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig
from ai_ticket_daemon.control.history import PoolHistory
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.outcome import Succeeded
from ai_ticket_daemon.pool import persistence
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.testing.fakes import FakeClient
from tests.support.lacks import TIMES, Lack, Lines
from tests.support.pipeline_house import event, running

if TYPE_CHECKING:
    from trio.testing import MockClock


class LackingStore(MemoryStore):
    """A store in memory of which some operations meet a lack."""

    lack: Lack
    where: str

    async def _meet(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if name == self.where:
            self.lack.before(str)()

    async def claim(self, *args: Any, **named: Any) -> Any:
        await self._meet("claim")
        return await super().claim(*args, **named)

    async def complete(self, *args: Any) -> bool:
        await self._meet("complete")
        return await super().complete(*args)

    async def expire(self, *args: Any, **named: Any) -> Any:
        await self._meet("expire")
        return await super().expire(*args, **named)

    async def recover(self, *args: Any) -> Any:
        await self._meet("recover")
        return await super().recover(*args)


PLACES = (
    "a generation", "looking at the queue", "a waited-for start", "what came of it", "telling",
    "claim", "complete", "expire", "recover",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
async def test_an_event_survives_a_lack_wherever_the_pipeline_meets_it(
    lack: Lack, place: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the event: it ends as if nothing had been, and no attempt is counted."""
    store = LackingStore()
    store.lack, store.where = lack, place
    async with running(store=store, exhaustion=lack.exhaustion()) as house:
        match place:
            case "a generation":
                house.primary.answers = [lack.error] * TIMES
            case "looking at the queue":
                pool = house.pool
                monkeypatch.setattr(pool, "exchange", lack.before(pool.exchange))
            case "a waited-for start":
                from ai_ticket_daemon.pipeline.turns import RecentTurns

                monkeypatch.setattr(RecentTurns, "since", lack.before(RecentTurns.since))
            case "what came of it":
                ended = house.ends.attempt_ended
                monkeypatch.setattr(house.ends, "attempt_ended", lack.before(ended))
            case "telling":
                waiters = house.pipeline._waiters
                monkeypatch.setattr(waiters, "end", lack.before(waiters.end))
        lack.raised()
        with trio.fail_after(120):
            submission = await house.pipeline.submit(event())
            outcome = await submission.outcome()
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.text == "HELLO"
        assert [attempt.error for attempt in outcome.attempts] == [None]
        assert house.primary.prompts == ["hello"] * (TIMES + 1 if place == "a generation" else 1)
        assert set(lack.met) == {"pipeline"}
        await trio.sleep(1)  # a starter that looks takes a slot for a moment
        assert house.pool["primary"].in_flight == 0


async def test_a_text_that_was_begun_is_not_begun_anew_for_a_lack(
    lack: Lack, autojump_clock: MockClock
) -> None:
    async with running(exhaustion=lack.exhaustion()) as house:
        house.primary.answers = [lack.error]
        with trio.fail_after(120):
            submission = await house.pipeline.submit(event("one two", stream=True))
            outcome = await submission.outcome()
        assert not isinstance(outcome, Succeeded)
        assert outcome.code is ErrorCode.API_CONNECTION_ERROR
        assert lack.resource.lack in outcome.message
        assert house.primary.prompts == ["one two"]


async def test_a_reload_for_which_something_lacks_leaves_the_servers_as_they_are(
    lack: Lack,
) -> None:
    one, two = (ServerConfig(name=n, url=f"http://{n}:1") for n in ("one", "two"))
    rules = BackendsConfig(servers=(one,))
    opens = lack.before(FakeClient)
    pool = BackendPool(
        lambda: rules,
        open_client=lambda server: FakeClient(server) if server is one else opens(server),
        observer=PoolObserver(),
    )
    before = pool["one"]
    lack.raised(1)
    with pytest.raises(type(lack.error)):
        pool.apply([ServerConfig(name="one", url="http://other:1"), two])
    assert list(pool) == [before]
    assert pool["one"].config is one
    pool.apply([one, two])
    assert [backend.name for backend in pool] == ["one", "two"]
    assert pool["one"] is before


async def test_what_the_pool_remembers_is_written_down_later(
    lack: Lack, autojump_clock: MockClock
) -> None:
    lines, store = Lines(), MemoryStore()
    rules = BackendsConfig(servers=(ServerConfig(name="one", url="http://one:1"),))
    pool = BackendPool(lambda: rules, open_client=FakeClient, observer=PoolObserver())
    remember = lack.before(store.remember)
    store.remember = remember  # type: ignore[method-assign]
    lack.raised()
    async with trio.open_nursery() as nursery:
        run = partial(persistence.run, pool=pool, store=store, log=lines.log, now=trio.current_time)
        await nursery.start(run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert lack.left == 0
    assert await store.recall(persistence.RECORD_KEY) is not None
    assert not lines.named("backends_not_kept")


async def test_what_happened_is_written_down_later(lack: Lack, autojump_clock: MockClock) -> None:
    lines, store = Lines(), MemoryStore()
    note = lack.before(store.note_changes)
    store.note_changes = note  # type: ignore[method-assign]
    history = PoolHistory(PoolObserver(), store, log=lines.log, now=trio.current_time)
    lack.raised()
    async with trio.open_nursery() as nursery:
        await nursery.start(history.run)
        history.note("something")
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [change.text for change in await store.changes(0, 100)] == ["something"]
    assert not lines.named("history_not_kept")
