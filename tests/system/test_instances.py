"""Three daemons, each a process of its own, on one store and one listening socket."""

from __future__ import annotations

import shutil
import signal
import socket as stdlib_socket
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.ctl.client import Client
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.system

NAMES = ("one", "two", "three")
SETTLE_SECONDS = 60.0
"""How long the slowest host may take for what a usual one does in a second."""


@dataclass
class Group:
    """The daemons, the socket that they share, and what they are started with."""

    folder: Path
    listener: stdlib_socket.socket
    servers: str
    nursery: trio.Nursery
    processes: dict[str, trio.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    async def start(self, name: str) -> None:
        """Start a daemon and wait until it serves."""
        conf = self.folder / f"{name}.conf"
        conf.write_text(
            f'http.bind = ["fd://{self.listener.fileno()}"]\n'
            'metrics.bind = "127.0.0.1:0"\ntelemetry.traces = "none"\nlog.format = "json"\n'
            "rate_limit.requests = 0\nbackends.probe_timeout_seconds = 10\n"
            f'store.url = "sqlite:///{self.folder}/events.db"\n'
            f'control.socket = "{self.folder}/{name}.sock"\n' + self.servers
        )
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "ai_ticket_daemon", "--config", str(conf)],
            stdout=DEVNULL, stderr=PIPE, pass_fds=[self.listener.fileno()],
        )  # fmt: skip
        self.processes[name] = process
        assert process.stderr is not None
        log = b""
        with trio.fail_after(SETTLE_SECONDS):
            while b'"event":"started"' not in log.replace(b": ", b":"):
                piece = await process.stderr.receive_some()
                assert piece, log.decode()
                log += piece
        self.nursery.start_soon(self._read_on, process)

    async def _read_on(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for _ in process.stderr:
            pass

    async def end(self, name: str, how: signal.Signals) -> None:
        process = self.processes.pop(name)
        process.send_signal(how)
        with trio.fail_after(SETTLE_SECONDS):
            await process.wait()

    async def ask(self, name: str, /, operation: str, *, act: bool = False, **words: object) -> Any:
        client = Client(self.folder / f"{name}.sock", SETTLE_SECONDS)
        ask = client.change if act else client.look
        return await trio.to_thread.run_sync(lambda: ask(operation, **words))

    async def until(self, met: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the status of every daemon that runs meets a condition."""
        with trio.fail_after(SETTLE_SECONDS):
            for name in self.processes:
                while not met(await self.ask(name, "status")):  # noqa: ASYNC110
                    await trio.sleep(0.05)


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    # Not tmp_path: the path of a Unix socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="ait"))
    quick = KoboldSettings().scaled(0.1)
    try:
        with stdlib_socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            async with (
                open_simulated_kobold(quick) as primary,
                open_simulated_kobold(quick) as standby,
                trio.open_nursery() as nursery,
            ):
                servers = "".join(
                    f'[[backends.server]]\nname = "{role}"\nrole = "{role}"\nurl = "{server.url}"\n'
                    for role, server in (("primary", primary), ("standby", standby))
                )
                group = Group(folder, listener, servers, nursery)
                try:
                    async with trio.open_nursery() as starting:
                        for name in NAMES:
                            starting.start_soon(group.start, name)
                    yield group
                finally:
                    with trio.CancelScope(shield=True):
                        for process in group.processes.values():
                            process.kill()
                            await process.wait()
                nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(folder)


async def post(group: Group, content: str, **headers: str) -> httpx.Response:
    """Hand over an event as a client that has just come."""
    async with httpx.AsyncClient(base_url=group.url, timeout=SETTLE_SECONDS) as client:
        event = {"content": content, "max_tokens": 4}
        return await client.post("/event", json=event, headers=headers)


async def test_forty_of_forty_clients_are_answered_over_restarts_of_three_daemons(
    group: Group,
) -> None:
    answers: list[httpx.Response] = []

    async def ask(number: int) -> None:
        answers.append(await post(group, f"ticket {number}"))

    async with trio.open_nursery() as clients:
        for turn, name in enumerate((*NAMES, None)):
            for number in range(10):
                clients.start_soon(ask, 10 * turn + number)
            if name is not None:
                while len(answers) < 10 * turn + 3:  # amid their work  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await group.end(name, signal.SIGTERM)
                await group.start(name)
    refused = [answer.text for answer in answers if answer.status_code != 200]
    assert (len(answers), refused) == (40, [])
    assert len({answer.json()["event_id"] for answer in answers}) == 40
    audit = await group.ask("one", "audit")
    assert (audit["accepted"], audit["difference"], audit["problems"]) == (40, 0, [])


async def test_orders_for_the_group_reach_every_process_and_outlive_the_one_that_was_asked(
    group: Group,
) -> None:
    told = await group.ask("one", "pause", act=True)
    assert sorted(Path(member["socket"]).stem for member in told["reached"]) == sorted(NAMES)
    await group.until(lambda report: bool(report["paused"]))
    held = [(await post(group, f"held {n}", prefer="respond-async")).json() for n in range(9)]
    assert [answer["estimated_start"] for answer in held] == [None] * 9

    await group.end("one", signal.SIGKILL)
    await group.start("one")
    await group.until(lambda report: bool(report["paused"]) and report["queue"]["queued"] == 9)

    await group.ask("three", "unpause", act=True)
    await group.until(lambda report: not report["paused"] and report["queue"]["succeeded"] == 9)


async def test_a_failover_by_order_moves_the_traffic_of_every_process(group: Group) -> None:
    await group.ask("two", "failover", act=True, name="standby")
    await group.until(lambda report: report["serving"]["pinned"] == "standby")
    answers = [(await post(group, f"ticket {number}")).json() for number in range(12)]
    assert {answer["backend"] for answer in answers} == {"standby"}

    await group.ask("one", "auto", act=True)
    await group.ask("three", "failback", act=True)
    await group.until(lambda report: report["serving"]["role"] == "primary")
    answers = [(await post(group, f"ticket {number}")).json() for number in range(12)]
    assert {answer["backend"] for answer in answers} == {"primary"}


async def test_a_drain_refuses_at_every_process_and_one_is_asked_alone_by_here(
    group: Group,
) -> None:
    await group.ask("three", "drain", act=True)
    await group.until(lambda report: bool(report["draining"]))
    refused = [await post(group, "no") for _ in range(6)]
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["error"] for answer in refused} == {"draining"}
    await group.ask("one", "resume", act=True)
    await group.until(lambda report: not report["draining"])

    told = await group.ask("two", "drain", act=True, here=True)
    assert [Path(member["socket"]).stem for member in told["reached"]] == ["two"]
    draining = {name: (await group.ask(name, "status"))["draining"] for name in NAMES}
    assert draining == {"one": False, "two": True, "three": False}
