"""Actors on a host that is out of something: they wait, and go on by themselves."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trustme
from prometheus_client import CollectorRegistry

from ai_ticket_daemon import signals, timekeeper
from ai_ticket_daemon.clock import Clock
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.control import server as control
from ai_ticket_daemon.host import trimmer
from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
from ai_ticket_daemon.host.memory_budget import MemoryBudget
from ai_ticket_daemon.host.trimmer import WORTH_BYTES
from ai_ticket_daemon.reloader import LiveConfig, Reloader
from ai_ticket_daemon.server.listen import renewal
from ai_ticket_daemon.server.listen.sockets import ListenerUnavailable
from ai_ticket_daemon.server.listen.tls import ServedCertificate
from ai_ticket_daemon.store.memory import MemoryStore
from ai_ticket_daemon.supervisor import Supervisor
from ai_ticket_daemon.systemd.notify import Notifier
from ai_ticket_daemon.telemetry.metrics import Metrics
from tests.support.lacks import Lack, Lines, no_descriptors, unreachable, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

CONF = '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'


async def test_an_actor_that_meets_a_lack_is_started_again_as_often_as_it_takes(
    lack: Lack, autojump_clock: MockClock
) -> None:
    lack.raised(50)
    up = trio.Event()

    async def actor(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.lowlevel.checkpoint()
        lack.before(up.set)()
        await trio.sleep_forever()

    supervisor = Supervisor(unreachable, exhaustion=lack.exhaustion())
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, "some", actor)
        with trio.fail_after(100):
            await up.wait()
        nursery.cancel_scope.cancel()
    assert lack.met == ["some"]
    assert supervisor.budget.recent == 0


async def test_what_cannot_even_be_told_ends_nobody(lack: Lack, autojump_clock: MockClock) -> None:
    """Counting, logging and reporting take memory, too."""
    up = trio.Event()
    errors: list[Exception] = [lack.error, ValueError("a fault"), lack.error]

    async def actor(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.lowlevel.checkpoint()
        if errors:
            raise errors.pop()
        up.set()
        await trio.sleep_forever()

    def say(*_: object) -> None:
        raise lack.error

    supervisor = Supervisor(say, exhaustion=Exhaustion(say=say, count=say))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, "some", actor)
        with trio.fail_after(100):
            await up.wait()
        nursery.cancel_scope.cancel()
    assert supervisor.budget.recent == 1


async def test_signals_are_received_while_their_actor_is_started_again(lack: Lack) -> None:
    """What Linux does by default with these would end the process."""
    done: list[str] = []
    lack.raised(1)
    actions: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGUSR1: lack.before(partial(done.append, "shown")),
        signal.SIGUSR2: partial(done.append, "debug"),
    }
    supervisor = Supervisor(unreachable, exhaustion=lack.exhaustion())
    with trio.open_signal_receiver(*actions) as received:
        async with trio.open_nursery() as nursery:
            run = partial(signals.run, received=received, actions=actions)
            await nursery.start(supervisor.run, "signals", run)
            signal.raise_signal(signal.SIGUSR1)
            await until(lambda: lack.met)
            signal.raise_signal(signal.SIGUSR2)  # the actor is away now
            signal.raise_signal(signal.SIGUSR1)
            await until(lambda: len(done) == 2)
            nursery.cancel_scope.cancel()
    assert sorted(done) == ["debug", "shown"]


async def test_memory_is_given_back_at_the_next_look(
    lack: Lack, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = trio.Event()

    async def run_sync(do: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint()
        lack.before(do)()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    memory = MemoryBudget(lambda: 10 * WORTH_BYTES)
    share = memory.share()
    assert share.take(2 * WORTH_BYTES)
    share.release()
    lack.raised()
    run = partial(trimmer.run, memory=memory, exhaustion=lack.exhaustion(), give_back=given.set)
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        with trio.fail_after(100):
            await given.wait()
        nursery.cancel_scope.cancel()
    assert lack.met == ["trimmer"]


async def test_the_time_is_written_down_at_the_next_look(autojump_clock: MockClock) -> None:
    lack, store, clock = Lack(Resource.MEMORY), MemoryStore(), Clock()
    remembered = trio.Event()

    async def remember(_key: str, _value: str) -> None:
        await trio.lowlevel.checkpoint()
        lack.before(remembered.set)()

    store.remember = remember  # type: ignore[assignment, method-assign]
    lack.raised()
    run = partial(
        timekeeper.run, clock=clock, store=store, log=Lines().log, note=lambda _text: None,
        exhaustion=lack.exhaustion(),
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        with trio.fail_after(10):
            await remembered.wait()
        nursery.cancel_scope.cancel()
    assert lack.met == ["timekeeper"]


def certificate(folder: Path) -> HttpConfig:
    """Put a new certificate with its key into ``folder``."""
    leaf = trustme.CA().issue_cert("localhost")
    (folder / "chain.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    return HttpConfig(tls_cert=folder / "chain.pem", tls_key=folder / "key.pem")


async def test_a_renewed_certificate_is_taken_at_the_next_look(
    lack: Lack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be looked at, or read, is neither taken nor refused for good."""
    lines = Lines()
    http = certificate(tmp_path)
    served = ServedCertificate(lambda: http)
    served.start()
    certificate(tmp_path)
    where = (
        "trio.to_thread.run_sync"
        if lack.resource is Resource.THREADS
        else "pathlib.Path.read_bytes"
    )
    import pathlib

    call = trio.to_thread.run_sync if lack.resource is Resource.THREADS else pathlib.Path.read_bytes
    monkeypatch.setattr(where, lack.before(call))
    lack.raised()
    run = partial(
        renewal.run, certificate=served, shown=lambda _at: None, log=lines.log,
        exhaustion=lack.exhaustion(), look_seconds=0.001,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        await until(lambda: lines.named("certificate_taken"))
        nursery.cancel_scope.cancel()
    assert lack.left == 0
    assert lack.met == ["renewal"]
    assert not lines.named("certificate_refused")


class Reloading:
    """A reloader on a conf file, and what it applied."""

    def __init__(self, folder: Path, lack: Lack, *, apply: Callable[[Any], None] | None = None):
        self.lines = Lines()
        self.conf = folder / "ai-ticket.conf"
        self.conf.write_text(CONF)
        self.applied: list[Any] = []
        self.live = LiveConfig(load_config(self.conf, {}))
        self.load: Callable[[], Any] = lambda: load_config(self.conf, {})
        self.reloader = Reloader(
            self.live,
            load=self._load,
            apply=apply or self.applied.append,
            log=self.lines.log,
            metrics=Metrics(CollectorRegistry()),
            notifier=Notifier(address=""),
            result_path=folder / "reload.json",
            exhaustion=lack.exhaustion(),
        )

    def _load(self) -> Any:
        return self.load()

    def problems(self) -> tuple[str, ...]:
        return self.reloader.problems


@pytest.mark.parametrize("where", ["reading", "applying"])
def test_a_reload_that_meets_a_lack_is_refused_as_that_and_changes_nothing(
    lack: Lack, where: str, tmp_path: Path
) -> None:
    applied: list[Any] = []
    house = Reloading(
        tmp_path, lack, apply=lack.before(applied.append) if where == "applying" else applied.append
    )
    if where == "reading":
        house.load = lack.before(house.load)
    before = house.live.current
    lack.raised(1)
    house.reloader.reload()
    assert house.live.current is before
    assert house.problems() == (
        f"this host is {lack.resource.lack}: reload again when there is more",
    )
    assert lack.met == ["reload"]
    house.reloader.reload()
    assert not house.problems()
    assert applied == [house.live.current]


def test_a_conf_file_that_cannot_be_opened_for_want_of_a_descriptor_is_no_mistake(
    tmp_path: Path,
) -> None:
    lack = Lack(Resource.DESCRIPTORS)
    house = Reloading(tmp_path, lack)
    with no_descriptors():
        house.reloader.reload()
    assert house.problems() == (
        "this host is out of file descriptors: reload again when there is more",
    )
    assert lack.met == ["reload"]
    [line] = house.lines.named("verdict_not_written")
    assert line["detail"] == "out of file descriptors"
    house.reloader.reload()
    assert not house.problems()


async def test_the_control_socket_is_opened_once_that_can_be_done(
    lack: Lack, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_at = trio.Event()

    async def serve(*_: object, task_status: trio.TaskStatus[object], **_named: object) -> None:
        await trio.lowlevel.checkpoint()
        try:
            lack.before(str)()
        except Exception as error:
            raise ListenerUnavailable("the socket cannot be opened") from error
        task_status.started(())
        opened_at.set()
        await trio.sleep_forever()

    monkeypatch.setattr("ai_ticket_daemon.server.listen.listeners.serve", serve)
    lines = Lines()
    run = partial(
        control.run,
        apps={tmp_path / "control.sock": cast("Any", None)},
        log=lines.log,
        logger=cast("Any", None),
        exhaustion=lack.exhaustion(),
    )
    lack.raised()
    supervisor = Supervisor(unreachable, exhaustion=lack.exhaustion())
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, "control", run)
        with trio.fail_after(100):
            await opened_at.wait()
        nursery.cancel_scope.cancel()
    assert "control" in lack.met
    assert not lines.named("control_unavailable")
