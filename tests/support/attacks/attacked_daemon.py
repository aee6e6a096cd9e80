"""A daemon to be attacked: a process of its own, two simulated servers, and a watch on it all.

``async with attacked(folder) as daemon`` starts it; ``async with daemon.watched()`` around an
attack fails when the process does not stay as it was.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.attacks.attack_watch import Limits, watching
from tests.support.attacks.loop_meter import Meter
from tests.support.system.endings import how_it_ended
from tests.support.system.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ai_ticket_daemon.testing.kobold import SimulatedKobold
    from tests.support.attacks.attack_watch import Seen

START_SECONDS = 60
STOP_SECONDS = 60
LOOK_SECONDS = 0.05
PROGRAM = Path(__file__).with_name("metered_daemon.py")


@dataclass
class AttackedDaemon:
    """The daemon as a process, and what an attack needs to find it."""

    folder: Path
    process: trio.Process
    meter: Meter
    primary: SimulatedKobold
    standby: SimulatedKobold
    http: tuple[str, int]
    metrics: tuple[str, int]
    control: Path
    store: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://{self.http[0]}:{self.http[1]}"

    @property
    def log(self) -> Path:
        return self.folder / "daemon.log"

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event name, oldest first."""
        return [line for line in _lines(self.log) if line.get("event") == event]

    async def connect(self) -> trio.SocketStream:
        """Return a new connection to the HTTP front end."""
        return await trio.open_tcp_stream(*self.http)

    def watched(self, limits: Limits | None = None) -> AbstractAsyncContextManager[Seen]:
        """Attack it for the length of a block; see :class:`Limits` for what has to hold."""
        return watching(self, limits or Limits())

    async def stop(self) -> None:
        """Stop it as SIGTERM does; it has to end in good order."""
        assert self.process.returncode is None, self.how_it_ended()
        self.process.terminate()
        with trio.fail_after(STOP_SECONDS):
            await self.process.wait()
        assert self.process.returncode == 0, self.how_it_ended()

    def how_it_ended(self) -> str:
        """Say whether and how the process has ended, with the last lines of its log."""
        return how_it_ended(self.process.returncode, self.log.read_text(errors="replace"))


@asynccontextmanager
async def attacked(
    folder: Path,
    *settings: str,
    environment: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    kobold: KoboldSettings | None = None,
) -> AsyncIterator[AttackedDaemon]:
    """Run a daemon, configured as shipped, for the length of a block.

    Args:
        folder: where its conf file, its store and its log are kept.
        settings: more lines of the conf file.
        environment: more variables.
        under: a command to run it under, such as ``("prlimit", "--nofile=256")``.
        kobold: what the servers are; quick ones by default.
    """
    ports = free_port(), free_port()
    # Not in `folder`: the path of a Unix socket has to be short.
    short = Path(tempfile.mkdtemp(prefix="ait"))
    conf, log, store = folder / "ai-ticket.conf", folder / "daemon.log", folder / "events.db"
    kobold = kobold or KoboldSettings().scaled(0.02)
    try:
        async with open_simulated_kobold(kobold) as one, open_simulated_kobold(kobold) as two:
            _configure(conf, ports, short / "control.sock", store, settings, (one.url, two.url))
            meter = Meter(folder / "meter")
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            process = await trio.lowlevel.open_process(
                [*under, sys.executable, str(PROGRAM), str(meter.path), "--config", str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
            os.close(output)
            daemon = AttackedDaemon(
                folder, process, meter, one, two, ("127.0.0.1", ports[0]),
                ("127.0.0.1", ports[1]), short / "control.sock", store,
            )  # fmt: skip
            try:
                await _started(daemon)
                yield daemon
            finally:
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
    finally:
        shutil.rmtree(short)


def _configure(
    conf: Path,
    ports: tuple[int, int],
    control: Path,
    store: Path,
    settings: Sequence[str],
    servers: tuple[str, str],
) -> None:
    given = {line.partition("=")[0].strip() for line in settings}
    lines = [
        f'http.bind = ["127.0.0.1:{ports[0]}"]',
        f'metrics.bind = "127.0.0.1:{ports[1]}"',
        f'control.socket = "{control}"',
        f'store.url = "sqlite:///{store}"',
        'telemetry.traces = "none"',
        "rate_limit.requests = 0",
        "backends.probe_interval_seconds = 0.5",
        "backends.probe_fast_interval_seconds = 0.1",
    ]
    lines = [line for line in lines if line.partition("=")[0].strip() not in given]
    lines += settings
    if not any(line.lstrip().startswith("[[backends.server]]") for line in settings):
        for name, url in zip(("primary", "standby"), servers, strict=True):
            lines += ["[[backends.server]]", f'name = "{name}"', f'role = "{name}"']
            lines.append(f'url = "{url}"')
    conf.write_text("\n".join(lines) + "\n")


async def _started(daemon: AttackedDaemon) -> None:
    """Wait until it serves, and have it done once what it will do: nothing is new to it then."""
    with trio.move_on_after(START_SECONDS):
        while daemon.process.returncode is None and not daemon.logged("started"):  # noqa: ASYNC110
            await trio.sleep(LOOK_SECONDS)
    assert daemon.process.returncode is None, daemon.how_it_ended()
    assert daemon.logged("started"), daemon.how_it_ended()
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
        for path in ("/live", "/ready", "/health", "/openapi.json"):
            await client.get(path)
        await client.post("/event", json={"content": "first", "max_tokens": 2})
        metrics = f"http://{daemon.metrics[0]}:{daemon.metrics[1]}/metrics"
        assert (await client.get(metrics)).status_code == 200


def _lines(log: Path) -> list[dict[str, Any]]:
    whole = [line for line in log.read_text(errors="replace").splitlines(keepends=True)
             if line.startswith("{") and line.endswith("\n")]  # fmt: skip
    return [json.loads(line) for line in whole]
