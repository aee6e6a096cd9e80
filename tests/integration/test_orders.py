"""Orders for all daemons of a store, on two of them that run."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.config.backends import BackendRole, ServerConfig
from ai_ticket_daemon.config.control import ControlConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.ctl.client import Client, Refused
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.testing.daemon import RunningDaemon

QUICK = KoboldSettings().scaled(0.1)


@dataclass(frozen=True, slots=True)
class Instance:
    """One of several daemons, and its control socket."""

    running: RunningDaemon
    client: Client

    async def change(self, operation: str, **arguments: object) -> Any:
        """Order something."""
        return await trio.to_thread.run_sync(lambda: self.client.change(operation, **arguments))

    async def status(self) -> Any:
        """Ask how it does."""
        return await trio.to_thread.run_sync(self.client.look, "status")

    async def why(self, event_id: str) -> str:
        """Ask for the life of an event."""
        told = await trio.to_thread.run_sync(lambda: self.client.look("why", event_id=event_id))
        return "\n".join(line["text"] for line in told["lines"])

    async def submit(self, **fields: object) -> Any:
        """Hand over an event without waiting for it."""

        def submit() -> Any:
            headers = {"prefer": "respond-async"}
            event = {"content": "Hello", "max_tokens": 4, **fields}
            with self.client.open("POST", "/event", event, headers=headers) as answer:
                return answer.json()

        return await trio.to_thread.run_sync(submit)

    async def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the status until it meets a condition."""
        with trio.fail_after(60):
            while True:
                report: dict[str, Any] = await self.status()
                if met(report):
                    return report
                await trio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Host:
    """Simulated servers, a store, and daemons that share it."""

    config: Config
    folder: Path

    @asynccontextmanager
    async def instance(self, name: str) -> AsyncIterator[Instance]:
        """Run a daemon for the length of a block."""
        socket = self.folder / f"{name}.sock"
        config = replace(self.config, control=ControlConfig(socket=socket))
        async with open_daemon(config) as running:
            instance = Instance(running, Client(socket, 10))
            await instance.until(lambda r: all(b["usable"] for b in r["backends"]))
            yield instance


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    # Not tmp_path: the path of a Unix socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="ait"))
    try:
        async with open_simulated_kobold(QUICK) as primary, open_simulated_kobold(QUICK) as standby:
            config = config_for(
                ServerConfig(name="primary", url=primary.url),
                ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
            )
            store = StoreConfig(url=f"sqlite:///{folder}/store/events.db")
            yield Host(replace(config, store=store), folder)
    finally:
        shutil.rmtree(folder)


def sockets(members: list[dict[str, Any]]) -> list[str]:
    return sorted(Path(member["socket"]).stem for member in members)


async def test_a_pause_reaches_every_daemon_of_the_store_and_says_whom(host: Host) -> None:
    async with host.instance("one") as one, host.instance("two") as two:
        answer = await one.change("pause")
        assert sockets(answer["reached"]) == ["one", "two"]
        assert answer["not_reached"] == []
        report = await two.status()
        assert (report["paused"], report["status"], report["ready"]) == (True, "degraded", True)
        assert "all daemons of this store" in report["reasons"][0]
        told = await two.submit()
        assert told["estimated_start"] is None
        assert "paused by an operator" in told["held"]
        assert two.running.log("order_heard")[0]["order"] == "paused"
        async with host.instance("three") as three:
            assert (await three.status())["paused"]
            assert three.running.log("orders_in_force")[0]["paused"] == "yes"
            answer = await three.change("unpause")
            assert sockets(answer["reached"]) == ["one", "three", "two"]
        await one.until(lambda r: r["queue"]["succeeded"] == 1)
        assert (await one.status())["status"] == "healthy"


async def test_an_order_stands_after_a_restart_and_can_be_taken_back_then(host: Host) -> None:
    async with host.instance("one") as one:
        await one.change("pause")
        await one.change("failover", name="standby")
        await one.submit()
    async with host.instance("one") as again:
        report = await again.status()
        assert report["paused"]
        assert report["serving"]["pinned"] == "standby"
        assert set(report["group"]["orders"]) == {"paused", "pinned"}
        assert report["queue"]["queued"] == 1
        await again.change("unpause")
        await again.change("auto")
        await again.until(lambda r: r["queue"]["succeeded"] == 1)
        assert (await again.status())["group"]["orders"] == {}


async def test_an_order_for_here_is_for_one_and_for_as_long_as_it_lives(host: Host) -> None:
    async with host.instance("one") as one, host.instance("two") as two:
        answer = await one.change("failover", name="standby", here=True)
        assert sockets(answer["reached"]) == ["one"]
        assert answer["scope"] == "here"
        await one.change("pause", here=True)
        await trio.sleep(1)
        assert not (await two.status())["paused"]
        assert (await two.status())["serving"]["pinned"] is None
        assert "this daemon only" in (await one.status())["reasons"][0]
    async with host.instance("one") as again:
        report = await again.status()
    assert not report["paused"]
    assert report["serving"]["pinned"] is None


async def test_failover_auto_and_failback_move_all_daemons_of_the_store(host: Host) -> None:
    async with host.instance("one") as one, host.instance("two") as two:
        answer = await one.change("failover", name="standby")
        assert sockets(answer["reached"]) == ["one", "two"]
        assert (await two.status())["serving"]["pinned"] == "standby"
        with pytest.raises(Refused, match="standby is pinned"):
            await two.change("failback")
        await two.change("auto")
        assert (await one.status())["serving"]["pinned"] is None
        assert sockets((await two.change("failback"))["reached"]) == ["one", "two"]
        assert (await one.status())["serving"]["role"] == "primary"


async def test_a_drain_reaches_all_and_new_events_are_told_that_an_operator_asked_for_it(
    host: Host,
) -> None:
    async with host.instance("one") as one, host.instance("two") as two:
        await one.change("drain")
        assert (await two.status())["ready"] is False
        with pytest.raises(Refused, match="draining by an operator"):
            await two.submit()
        await two.change("resume")
        assert (await one.status())["ready"]
        assert (await one.submit())["state"] == "queued"


async def test_held_events_do_not_expire_and_one_that_is_waited_for_says_why(host: Host) -> None:
    async with host.instance("one") as one:
        await one.change("pause")
        told = await one.submit(timeout_seconds=1)
        with pytest.raises(Refused, match="paused by an operator") as refused:
            await trio.to_thread.run_sync(lambda: _wait(one.client))
        assert refused.value.code == "deadline_exceeded"
        report = await one.status()
        assert (report["queue"]["queued"], report["queue"]["expired"]) == (1, 1)
        held = await one.why(told["event_id"])
        await one.change("unpause")
        await one.until(lambda r: r["queue"]["succeeded"] == 1)
        freed = await one.why(told["event_id"])
    assert "held (paused by an operator" in held
    assert "an operator unpaused all daemons of this store" in freed


def _wait(client: Client) -> None:
    with client.open("POST", "/event", {"content": "Hello", "timeout_seconds": 2}):
        pass
