from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from ai_ticket_daemon.wakeup import Wakeup


async def test_a_change_wakes_all_who_wait_and_those_of_its_followers() -> None:
    first, second = Wakeup(), Wakeup()
    first.forward_to(second)
    woken = []

    async def wait(wakeup: Wakeup, name: str) -> None:
        await wakeup.wait(wakeup.version)
        woken.append(name)

    async with trio.open_nursery() as nursery:
        for wakeup, name in ((first, "a"), (first, "b"), (second, "c")):
            nursery.start_soon(wait, wakeup, name)
        await wait_all_tasks_blocked()
        first.notify()
    assert sorted(woken) == ["a", "b", "c"]


async def test_a_follower_does_not_wake_whom_it_follows() -> None:
    first, second = Wakeup(), Wakeup()
    first.forward_to(second)
    second.notify()
    assert (first.version, second.version) == (0, 1)


async def test_a_change_is_not_missed_between_the_look_and_the_wait() -> None:
    wakeup = Wakeup()
    seen = wakeup.version
    wakeup.notify()
    with trio.fail_after(5):
        await wakeup.wait(seen)
