"""A daemon with a control socket in front of simulated servers, and ``ai-ticketctl`` beside it."""

from __future__ import annotations

import json
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
from ai_ticket_daemon.ctl import main as ctl
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.testing.daemon import RunningDaemon
    from ai_ticket_daemon.testing.kobold import SimulatedKobold

QUICK = KoboldSettings().scaled(0.1)
SLOW = replace(KoboldSettings(), tokens_per_second=20)


@dataclass(frozen=True, slots=True)
class House:
    """What a test of the control socket has at hand."""

    running: RunningDaemon
    primary: SimulatedKobold
    standby: SimulatedKobold
    socket: Path
    folder: Path
    captured: pytest.CaptureFixture[str]

    async def ctl(self, *words: str | Path, code: int = 0) -> str:
        """Run ``ai-ticketctl`` and return what it printed."""
        command = ["--socket", str(self.socket), *map(str, words)]
        self.captured.readouterr()
        with trio.fail_after(60):
            returned = await trio.to_thread.run_sync(ctl.main, command)
        out, err = self.captured.readouterr()
        assert returned == code, f"{words}: {returned}\n{out}\n{err}"
        return out + err

    async def json(self, *words: str | Path, code: int = 0) -> Any:
        """Run it with ``--json`` and return what it told."""
        command = ["--socket", str(self.socket), "--json", *map(str, words)]
        self.captured.readouterr()
        with trio.fail_after(60):
            returned = await trio.to_thread.run_sync(ctl.main, command)
        out, err = self.captured.readouterr()
        assert returned == code, f"{words}: {returned}\n{out}\n{err}"
        return json.loads(out)

    async def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the status until it meets a condition, and return it."""
        with trio.fail_after(60):
            while True:
                report: dict[str, Any] = await self.json("status")
                if met(report):
                    return report
                await trio.sleep(0.05)


@asynccontextmanager
async def open_house(
    captured: pytest.CaptureFixture[str],
    settings: KoboldSettings = QUICK,
    change: Callable[[Config], Config] = lambda config: config,
) -> AsyncIterator[House]:
    """Run a daemon with a primary, a standby and a store on disk for the length of a block."""
    # Not tmp_path: the path of a Unix socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="ait"))
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("XDG_STATE_HOME", str(folder / "state"))
            async with _open_house(folder, captured, settings, change) as house:
                yield house
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def _open_house(
    folder: Path,
    captured: pytest.CaptureFixture[str],
    settings: KoboldSettings,
    change: Callable[[Config], Config],
) -> AsyncIterator[House]:
    async with (
        open_simulated_kobold(settings) as primary,
        open_simulated_kobold(settings) as standby,
    ):
        config = config_for(
            ServerConfig(name="primary", url=primary.url),
            ServerConfig(name="standby", url=standby.url, role=BackendRole.STANDBY),
        )
        config = replace(
            config,
            control=ControlConfig(socket=folder / "c.sock"),
            store=StoreConfig(url=f"sqlite:///{folder}/store/events.db"),
        )
        async with open_daemon(change(config)) as running:
            house = House(running, primary, standby, folder / "c.sock", folder, captured)
            await house.until(lambda r: all(b["usable"] for b in r["backends"]))
            yield house
