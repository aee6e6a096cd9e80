"""Where a chapter of the runbook is rehearsed: a daemon as a process of its own, with its conf
file, two simulated servers, a Prometheus with the shipped rules, and the shell of an operator.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.drills.runbook import following
from tests.support.system.endings import how_it_ended
from tests.support.system.monitoring import Server, until
from tests.support.system.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from ai_ticket_daemon.testing.kobold import SimulatedKobold
    from tests.support.drills.runbook import Page

QUICK = KoboldSettings().scaled(0.1)
COMMAND_SECONDS = 120
WAIT_SECONDS = 120
"""A guard against hanging: what is waited for may itself wait, and the machine may be busy."""
LOOK_SECONDS = 0.1
"""To look takes a processor 20 ms."""
SHORT = {"max_tokens": 4}
DAEMON = (sys.executable, "-m", "ai_ticket_daemon")


@dataclass
class Watch:
    """A Prometheus that looks at every stage of a file, each at an address of its own.

    Starting one takes 5 seconds, and one alone for each stage would take all of them.
    """

    port: int
    log: Path
    addresses: Iterator[str]


@dataclass
class Stage:
    """What is there, and what an operator and a client can do."""

    folder: Path
    page: Page
    primary: SimulatedKobold
    standby: SimulatedKobold
    client: httpx.AsyncClient
    http: str
    metrics: str
    collector: str
    socket: Path
    program: tuple[str, ...]
    environment: Mapping[str, str]
    prometheus: Server
    process: trio.Process = field(init=False)

    @property
    def conf(self) -> Path:
        return self.folder / "ai-ticket.conf"

    @property
    def store(self) -> Path:
        return self.folder / "store" / "events.db"

    @property
    def collector_port(self) -> int:
        return int(self.collector.rpartition(":")[2])

    # ---------------------------------------------------------------------------- the operator

    async def run(self, command: str, code: int = 0, **blanks: str) -> str:
        """Run the next command of the chapter as it stands there; return what it printed.

        Args:
            command: as the runbook has it.
            code: how it is to end.
            blanks: what to put where the runbook has a word in capitals.
        """
        self.page.turn_to(command)
        return await self.shell(command, code, **blanks)

    async def shell(self, command: str, code: int = 0, **blanks: str) -> str:
        """Run any command in the operator's shell."""
        here = {
            r"localhost:9464\b": self.metrics,
            r"localhost:4318\b": self.collector,
            r"127\.0\.0\.1:5001\b": self.primary.url.removeprefix("http://"),
            r"/etc/ai-ticket/ai-ticket\.conf": str(self.conf),
            r"/var/lib/ai-ticket": str(self.store.parent),
            **{rf"\b{word}\b": value for word, value in blanks.items()},
        }
        text = command
        for pattern, replacement in here.items():
            text = re.sub(pattern, replacement, text)
        with trio.fail_after(COMMAND_SECONDS):
            done = await trio.run_process(
                ["bash", "-o", "pipefail", "-c", text],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=self.folder,
                env={**self.environment, "AI_TICKET_SOCKET": str(self.socket)},
            )
        told = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == code, f"{text}: {done.returncode}\n{told}"
        return told

    async def ask(self, *words: str) -> Any:
        """Return what ``ai-ticketctl`` tells a program."""
        return json.loads(await self.shell(f"ai-ticketctl --json {' '.join(words)}"))

    async def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask for the status until it meets a condition, and return it."""
        with trio.fail_after(WAIT_SECONDS):
            while True:
                status = await self.status()
                if met(status):
                    return status
                await trio.sleep(LOOK_SECONDS)

    async def status(self) -> dict[str, Any]:
        """Return what ``ai-ticketctl status`` tells a program, without starting that command."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        async with httpx.AsyncClient(transport=transport, timeout=COMMAND_SECONDS) as control:
            answer = await control.get("http://localhost/control/status")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status

    def configure(self, *settings: str, servers: Mapping[str, str] | None = None) -> None:
        """Write the conf file: settings, and each server's URL with its role behind it."""
        if servers is None:
            servers = {"primary": self.primary.url, "standby": f"{self.standby.url} standby"}
        lines = [
            f'http.bind = ["{self.http}"]',
            f'metrics.bind = "{self.metrics}"',
            f'control.socket = "{self.socket}"',
            f'telemetry.otlp_endpoint = "http://{self.collector}"',
            f'store.url = "sqlite:///{self.store}"',
            f'log.capture_directory = "{self.store.parent}/captures"',
            "rate_limit.requests = 0",
            "pipeline.backoff_seconds = 0",
            "backends.probe_interval_seconds = 0.2",
            "backends.probe_timeout_seconds = 10",  # The machine may be busy; that is no failover.
            "backends.probe_fast_interval_seconds = 0.05",
            *settings,
        ]
        if not any(line.startswith("telemetry.traces") for line in settings):
            lines.append('telemetry.traces = "none"')
        for name, server in servers.items():
            url, _, role = server.partition(" ")
            lines += ["[[backends.server]]", f'name = "{name}"', f'url = "{url}"']
            lines += [f'role = "{role}"'] if role else []
        self.conf.write_text("\n".join(lines) + "\n")

    # ---------------------------------------------------------------------------- the process

    async def start(self) -> None:
        """Start the daemon, and wait until it serves."""
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        before = len(self.logged("started"))
        self.process = await trio.lowlevel.open_process(
            [*self.program, "--config", str(self.conf)],
            stdout=subprocess.DEVNULL, stderr=log, env=dict(self.environment),
        )  # fmt: skip
        os.close(log)
        await self.until_logged("started", before + 1)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the daemon by a signal and return its exit code."""
        self.process.send_signal(number)
        with trio.fail_after(WAIT_SECONDS):
            return await self.process.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "daemon.log"

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event name, oldest first."""
        if not self._log.exists():
            return []
        whole = [
            line for line in self._log.read_text().splitlines(keepends=True) if line[-1:] == "\n"
        ]
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    async def until_logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for a line, and return it."""
        with trio.move_on_after(WAIT_SECONDS):
            # A file tells nobody that it has grown.
            while len(self.logged(event)) < count and self.process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(LOOK_SECONDS)
            if len(found := self.logged(event)) >= count:
                return found[count - 1]
        told = how_it_ended(self.process.returncode, self._log.read_text())
        raise AssertionError(f"no line {event}: {told}")

    # ----------------------------------------------------------------------------- Prometheus

    async def sees(self, expression: str) -> float:
        """Wait until Prometheus finds something, and return the first value.

        ``{{instance}}`` in the expression is the label of this stage's daemon.
        """
        asked = expression.replace("{{instance}}", f'instance="{self.metrics}"')
        found = await until(lambda: self.prometheus.query(asked), lambda: asked)
        return float(found[0]["value"][1])

    async def alert_begins(self, name: str) -> None:
        """Wait until the shipped alert is pending or fires."""
        await self.sees(f'ALERTS{{alertname="{name}", {{{{instance}}}}}}')

    async def alert_ends(self, name: str) -> None:
        """Wait until it no longer does."""
        await self.sees(f'absent(ALERTS{{alertname="{name}", {{{{instance}}}}}})')

    # -------------------------------------------------------------------------------- clients

    async def post(self, content: str = "Hello", **options: object) -> httpx.Response:
        """Post an event and wait for its answer."""
        return await self.client.post("/event", json=SHORT | {"content": content} | options)

    async def leave(self, count: int = 1, **options: object) -> list[str]:
        """Hand in events and do not wait; return their ids."""
        event_ids = []
        for number in range(count):
            answer = await self.client.post(
                "/event",
                json=SHORT | {"content": f"Ticket {number}"} | options,
                headers={"prefer": "respond-async"},
            )
            assert answer.status_code == 202, answer.text
            event_ids.append(answer.json()["event_id"])
        return event_ids

    async def succeeded(self, count: int) -> None:
        """Wait until so many events have succeeded in all, and none is lost."""
        status = await self.until(lambda s: s["queue"]["succeeded"] >= count)
        assert status["queue"]["succeeded"] == count
        assert (await self.ask("audit"))["difference"] == 0


@asynccontextmanager
async def open_stage(
    watch: Watch,
    folder: Path,
    heading: str,
    *settings: str,
    kobold: KoboldSettings = QUICK,
    program: tuple[str, ...] = DAEMON,
    **environment: str,
) -> AsyncIterator[Stage]:
    """Rehearse a chapter for the length of a block.

    Args:
        watch: the Prometheus.
        folder: where everything is kept.
        heading: that of the chapter; all its commands have to be run within the block.
        settings: lines of the conf file.
        kobold: what the servers are.
        program: what runs the daemon.
        environment: more variables for the daemon and the shell.
    """
    http, collector = (f"127.0.0.1:{free_port()}" for _ in range(2))
    # Not in `folder`: the path of a Unix socket has to be short.
    short = Path(tempfile.mkdtemp(prefix="ait"))
    (folder / "store").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            stage = Stage(
                folder=folder,
                page=stack.enter_context(following(heading, on_host=False)),
                primary=await enter(open_simulated_kobold(kobold)),
                standby=await enter(open_simulated_kobold(kobold)),
                client=await enter(httpx.AsyncClient(base_url=f"http://{http}", timeout=60)),
                http=http,
                metrics=next(watch.addresses),
                collector=collector,
                socket=short / "control.sock",
                program=program,
                environment={
                    "PATH": path,
                    "LC_ALL": "C.UTF-8",
                    "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"],
                    **environment,
                },
                prometheus=Server(watch.port, watch.log),
            )
            stack.push_async_callback(stage.prometheus.aclose)
            stage.configure(*settings)
            stack.push_async_callback(_end, stage)
            await stage.start()
            await stage.until(lambda s: all(backend["usable"] for backend in s["backends"]))
            await stage.sees("up{{{instance}}} == 1")
            await stage.sees("absent(ALERTS{{{instance}}})")
            yield stage
    finally:
        shutil.rmtree(short)


async def _end(stage: Stage) -> None:
    process: trio.Process | None = getattr(stage, "process", None)
    if process is not None and process.returncode is None:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Rehearse(Protocol):
    """What the fixture of that name gives: :func:`open_stage`, with its watch and a folder."""

    def __call__(
        self,
        heading: str,
        *settings: str,
        kobold: KoboldSettings = QUICK,
        program: tuple[str, ...] = DAEMON,
        **environment: str,
    ) -> AbstractAsyncContextManager[Stage]: ...
