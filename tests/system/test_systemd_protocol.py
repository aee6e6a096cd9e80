"""The real process and a stand-in for systemd: its messages, its sockets, its directories."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.systemd import FIRST_LISTEN_FD
from ai_ticket_daemon.verdict import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "ai_ticket_daemon"]
GUARD_SECONDS = 30
WATCHDOG_SECONDS = 2.0

CONF = """\
metrics.bind = "127.0.0.1:0"
telemetry.traces = "none"
[[backends.server]]
name = "primary"
url = "http://127.0.0.1:1"
"""


@dataclass
class Service:
    """A daemon as systemd runs it, and every message it has sent so far."""

    process: trio.Process
    conf: Path
    port: int
    runtime: Path
    manager: trio.socket.SocketType
    messages: list[str] = field(default_factory=list)

    async def told(self, start: str) -> str:
        """Wait for the next message that begins so."""
        with trio.fail_after(GUARD_SECONDS):
            while True:
                message = (await self.manager.recv(4096)).decode()
                self.messages.append(message)
                if message.startswith(start):
                    return message

    async def reload(self) -> subprocess.CompletedProcess[bytes]:
        """Do what ``ExecReload=`` does."""
        return await trio.run_process(
            [*COMMAND, "--reload", str(self.process.pid)],
            capture_stderr=True,
            check=False,
            env=os.environ | {"RUNTIME_DIRECTORY": str(self.runtime)},
        )


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[Service]:
    conf, runtime, address = folder / "a.conf", folder / "run", folder / "notify"
    conf.write_text(CONF)
    runtime.mkdir()
    manager = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await manager.bind(str(address))
    with manager, socket.create_server(("127.0.0.1", 0)) as listener:
        environ = os.environ | {
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000)),
            "RUNTIME_DIRECTORY": str(runtime),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "http",
        }
        # The shell puts the socket where systemd would, and names its own process, as systemd does.
        script = f'LISTEN_PID=$$ exec "$@" {FIRST_LISTEN_FD}<&{listener.fileno()}'
        process = await trio.lowlevel.open_process(
            ["bash", "-c", script, "sh", *COMMAND, "--config", str(conf)],
            env=environ,
            pass_fds=[listener.fileno()],
        )
        try:
            yield Service(process, conf, listener.getsockname()[1], runtime, manager)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_the_whole_life_of_a_service(tmp_path: Path) -> None:
    async with service(tmp_path) as s, httpx.AsyncClient(trust_env=False) as client:
        await s.told("READY=1")
        answer = await client.get(f"http://127.0.0.1:{s.port}/live")
        assert answer.status_code == 200

        await s.told("WATCHDOG=1")
        with trio.fail_after(WATCHDOG_SECONDS):
            await s.told("WATCHDOG=1")
        assert any("no backend is usable" in message for message in s.messages)

        s.process.send_signal(signal.SIGTERM)
        await s.told("STOPPING=1")
        with trio.fail_after(GUARD_SECONDS):
            assert await s.process.wait() == 0


async def test_a_reload_is_announced_ended_and_answered(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        await s.told("READY=1")
        s.conf.write_text('log.level = "warning"\n' + CONF)
        applied = await s.reload()
        assert "MONOTONIC_USEC=" in await s.told("RELOADING=1")
        await s.told("READY=1")
        assert (applied.returncode, applied.stderr) == (0, b"")

        s.conf.write_text('log.level = "loud"\n' + CONF)
        refused = await s.reload()
        assert refused.returncode == 1
        assert f"{s.conf}:1: log.level" in refused.stderr.decode()
        await s.told("RELOADING=1")
        assert "LAST RELOAD REFUSED" in await s.told("STATUS=")
        await s.told("READY=1")
        assert "LAST RELOAD REFUSED" in await s.told("STATUS=unhealthy")

        s.conf.write_text(CONF)
        assert (await s.reload()).returncode == 0
        await s.told("RELOADING=1")
        await s.told("READY=1")
        assert "LAST RELOAD REFUSED" not in await s.told("STATUS=unhealthy")


async def test_a_bad_file_at_the_start_is_told_before_the_exit(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        await s.told("READY=1")
        s.process.kill()
        await s.process.wait()
        s.conf.write_text("log.level = 'loud'\n" + CONF)
        environ = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        again = await trio.run_process(
            [*COMMAND, "--config", str(s.conf)], capture_stderr=True, check=False, env=environ
        )
        assert again.returncode == 78
        assert "log.level" in await s.told("STATUS=the configuration cannot be used")


def run_reload(pid: int, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k != "RUNTIME_DIRECTORY"}
    return subprocess.run(
        [*COMMAND, "--reload", str(pid)],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
        env=clean | environ,
    )


@pytest.mark.parametrize("verdict", [None, {"pid": 1, "reloads": 0, "problems": []}, "no JSON"])
def test_a_process_that_is_no_daemon_of_ours_is_not_signalled(
    tmp_path: Path, verdict: dict[str, Any] | str | None
) -> None:
    if verdict is not None:
        (tmp_path / FILE_NAME).write_text(json.dumps(verdict))
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            done = run_reload(bystander.pid, RUNTIME_DIRECTORY=str(tmp_path))
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert done.returncode == 1
    assert "holds no verdict of the process" in done.stderr


def test_outside_of_a_unit_the_reload_command_says_what_it_needs() -> None:
    done = run_reload(1)

    assert done.returncode == 1
    assert "RUNTIME_DIRECTORY is not set" in done.stderr
