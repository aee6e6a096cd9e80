from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.supervisor import RestartBudget, RestartBudgetExceeded, Supervisor

if TYPE_CHECKING:
    from trio.testing import MockClock


class Crashes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, name: str, error: Exception) -> None:
        self.seen.append((name, str(error)))


class Flaky:
    """An actor that crashes ``times`` times, each ``after`` seconds, and then stays."""

    def __init__(self, times: int, after: float = 1.0) -> None:
        self.times = times
        self.after = after
        self.starts: list[float] = []

    async def __call__(self, *, task_status: trio.TaskStatus[object]) -> None:
        self.starts.append(trio.current_time())
        task_status.started(f"start {len(self.starts)}")
        await trio.sleep(self.after)
        if len(self.starts) <= self.times:
            raise RuntimeError(f"crash {len(self.starts)}")
        await trio.sleep_forever()


async def test_a_crashed_actor_is_reported_and_started_again(autojump_clock: MockClock) -> None:
    crashes, actor = Crashes(), Flaky(times=2)
    async with trio.open_nursery() as nursery:
        value = await nursery.start(Supervisor(crashes).run, "prober", actor)
        assert value == "start 1"
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert crashes.seen == [("prober", "crash 1"), ("prober", "crash 2")]
    assert actor.starts == pytest.approx([0, 1.1, 2.3])


async def test_too_many_restarts_escalate_with_the_last_error_as_cause(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(Crashes()).run, "prober", Flaky(times=99))
            await trio.sleep_forever()
    (error,) = caught.value.exceptions
    assert isinstance(error, RestartBudgetExceeded)
    assert str(error.__cause__) == "crash 6"
    assert "'prober'" in str(error)


async def test_the_budget_heals_over_time(autojump_clock: MockClock) -> None:
    actor = Flaky(times=40, after=20)
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(Crashes()).run, "prober", actor)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert len(actor.starts) == 41


async def test_all_actors_share_one_budget(autojump_clock: MockClock) -> None:
    supervisor = Supervisor(Crashes(), RestartBudget(max_restarts=3))
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c", "d"):
                await nursery.start(supervisor.run, name, Flaky(times=1))
            await trio.sleep_forever()
    assert caught.value.subgroup(RestartBudgetExceeded) is not None


async def test_an_actor_that_never_started_is_not_restarted(autojump_clock: MockClock) -> None:
    async def cannot_bind(*, task_status: trio.TaskStatus[object]) -> None:
        raise OSError("address in use")

    crashes = Crashes()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(crashes).run, "http", cannot_bind)
    (error,) = caught.value.exceptions
    assert isinstance(error, OSError)
    assert crashes.seen == []


async def test_cancelling_stops_an_actor_without_a_report(autojump_clock: MockClock) -> None:
    crashes = Crashes()
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(crashes).run, "prober", Flaky(times=0))
        nursery.cancel_scope.cancel()
    assert crashes.seen == []
