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
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.ctl.client import Client
from ai_ticket_daemon.systemd.notify import FIRST_LISTEN_FD
from ai_ticket_daemon.systemd.reload_result import FILE_NAME, reload_and_wait
from tests.support.system.endings import how_it_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "ai_ticket_daemon"]
GUARD_SECONDS = 60
WATCHDOG_SECONDS = 6.0

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
        with trio.move_on_after(GUARD_SECONDS):
            while True:
                message = (await self.manager.recv(4096)).decode()
                self.messages.append(message)
                if message.startswith(start):
                    return message
        ended = how_it_ended(self.process.poll(), "\n".join(self.messages))
        raise AssertionError(f"systemd was not told {start}: {ended}")

    async def reload(self) -> subprocess.CompletedProcess[bytes]:
        """Do what ``ExecReload=`` does."""
        return await trio.run_process(
            [*COMMAND, "--reload", str(self.process.pid)],
            capture_stderr=True,
            check=False,
            env=os.environ | {"RUNTIME_DIRECTORY": str(self.runtime)},
        )


@asynccontextmanager
async def service(
    folder: Path, settings: str = CONF, program: Sequence[str] = COMMAND
) -> AsyncIterator[Service]:
    conf, runtime, address = folder / "a.conf", folder / "run", folder / "notify"
    conf.write_text(settings)
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
            ["bash", "-c", script, "sh", *program, "--config", str(conf)],
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
    async with service(tmp_path) as s, httpx.AsyncClient(trust_env=False, timeout=60) as client:
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


class Gate:
    """An OpenAI-compatible server that begins each answer at once and ends it when told to."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.streams_begun = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while (head_end := request.find(b"\r\n\r\n")) < 0:
                request += await stream.receive_some()
            head = request[:head_end].decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
            while len(request) < head_end + 4 + length:
                request += await stream.receive_some()
            if head.startswith("get"):
                await self._send(stream, "application/json", json.dumps({"data": [{"id": "m"}]}))
            elif json.loads(request[head_end + 4 :]).get("stream"):
                await self._send(stream, "text/event-stream", delta("begun "))
                self.streams_begun += 1
                await self.opened.wait()
                end = delta("and ended", finish="stop") + "data: [DONE]\n\n"
                await stream.send_all(end.encode())
            else:
                message = {"message": {"content": "done"}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": 1}
                body = json.dumps({"choices": [message], "usage": usage})
                await self._send(stream, "application/json", body)

    async def _send(self, stream: trio.SocketStream, media_type: str, body: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nConnection: close\r\n\r\n"
        await stream.send_all((head + body).encode())


def delta(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


STREAMS, QUEUED, RELOADS = 50, 500, 100


def settings_for(number: int, url: str) -> str:
    """Return the conf file of one reload: every second one has a mistake, and all others differ."""
    slots = STREAMS if number % 2 == 0 else 0
    server = f'[[backends.server]]\nkind = "openai"\nurl = "{url}"\n'
    standby = (
        '[[backends.server]]\nname = "standby"\nrole = "standby"\nurl = "http://127.0.0.1:1"\n'
    )
    return (
        "rate_limit.requests = 0\n"
        'metrics.bind = "127.0.0.1:0"\n'
        'telemetry.traces = "none"\n'
        "backends.probe_timeout_seconds = 30\n"  # A host that is busy is no server that is down.
        f"pipeline.backoff_seconds = {0.2 + number / 1000}\n"
        f"pipeline.max_concurrency = {slots}\n"
        f'{server}name = "primary"\nmax_in_flight = {STREAMS}\n{standby if number % 4 else ""}'
    )


async def test_a_hundred_reloads_drop_nothing_that_runs_or_waits(tmp_path: Path) -> None:
    """50 streams are under way and 500 events wait, while every second file is a bad one."""
    gate = Gate()
    completions: list[str] = []
    async with trio.open_nursery() as servers:
        [listener] = await servers.start(
            partial(trio.serve_tcp, gate.serve, 0, host="127.0.0.1", handler_nursery=servers)
        )
        host, port = listener.socket.getsockname()
        url = f"http://{host}:{port}"
        limits = httpx.Limits(max_connections=None)
        async with (
            service(tmp_path, settings_for(0, url)) as s,
            httpx.AsyncClient(trust_env=False, limits=limits, timeout=120) as client,
            trio.open_nursery() as clients,
        ):
            await s.told("READY=1")
            address = f"http://127.0.0.1:{s.port}"

            async def stream() -> None:
                body = {"content": "a", "stream": True}
                text = ""
                async with client.stream("POST", f"{address}/event", json=body) as answer:
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            text += json.loads(line.removeprefix("data: ")).get("delta", "")
                completions.append(text)

            async def post() -> None:
                answer = await client.post(f"{address}/event", json={"content": "a"})
                assert answer.status_code == 200, answer.text
                completions.append(answer.json()["completion"])

            async def until(count: int, state: str) -> None:
                with trio.fail_after(GUARD_SECONDS):
                    while await queue(state) != count:  # noqa: ASYNC110 - in another process
                        await trio.sleep(0.05)

            async def queue(state: str) -> int:
                answer = await client.get(f"{address}/health")
                return int(answer.json()["queue"].get(state, 0))

            async def read_messages() -> None:
                while True:
                    await s.told("")

            servers.start_soon(read_messages)
            for _ in range(STREAMS):
                clients.start_soon(stream)
            await until(STREAMS, "running")
            for _ in range(QUEUED):
                clients.start_soon(post)
            await until(QUEUED, "queued")

            refused = 0
            for number in range(1, RELOADS + 1):
                draft = tmp_path / "draft"
                draft.write_text(settings_for(number, url))
                draft.replace(s.conf)
                problems = await trio.to_thread.run_sync(
                    reload_and_wait, s.process.pid, s.runtime / FILE_NAME
                )
                assert bool(problems) == bool(number % 2), problems
                refused += bool(problems)
            assert refused == RELOADS / 2
            await until(QUEUED, "queued")
            assert completions == []

            gate.opened.set()
        servers.cancel_scope.cancel()
    assert sorted(completions) == ["begun and ended"] * STREAMS + ["done"] * QUEUED


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


async def test_the_sockets_that_are_really_open_are_judged(tmp_path: Path) -> None:
    """A conf file that says loopback does not hide what a socket unit holds."""
    control = tmp_path / "control.sock"
    settings = f'http.bind = ["127.0.0.1:5000"]\ncontrol.socket = "{control}"\n' + CONF
    async with service(tmp_path, settings) as s:
        await s.told("READY=1")
        client = Client(control, GUARD_SECONDS)
        status = await trio.to_thread.run_sync(client.look, "status")
        plan = await trio.to_thread.run_sync(client.look, "reload-plan")
        told = (
            f"http.bind is not in force: ai-ticket.socket holds 127.0.0.1:{s.port} "
            "(systemctl edit ai-ticket.socket)"
        )
        assert told in status["warnings"]
        assert told in plan["warnings"]
        assert status["addresses"] == [f"127.0.0.1:{s.port}"]


async def test_a_start_that_fails_leaves_its_cause_in_the_status(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = CONF.replace("127.0.0.1:0", f"127.0.0.1:{port}")
        async with service(tmp_path, settings) as s:
            told = await s.told("STATUS=metrics.bind: cannot listen on")
            with trio.fail_after(GUARD_SECONDS):
                assert await s.process.wait() == 69
    assert f"127.0.0.1:{port}" in told
    assert told.endswith("(exit code 69)")


CRASHES = """\
import sys
from ai_ticket_daemon import __main__, app
def crash(self):
    raise RuntimeError("what a client sent")
assert app.Daemon._actions
app.Daemon._actions = crash
sys.exit(__main__.main(sys.argv[1:]))
"""


async def test_a_fault_leaves_its_kind_in_the_status_and_not_what_it_says(tmp_path: Path) -> None:
    program = (sys.executable, "-c", CRASHES)
    async with service(tmp_path, program=program) as s:
        with trio.fail_after(GUARD_SECONDS):
            assert await s.process.wait() == 70
        told = await s.told("STATUS=a fault of the daemon")
    assert told.endswith("; the journal has the traceback (exit code 70)")
    assert not any("what a client sent" in message for message in s.messages)


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


@pytest.mark.parametrize("result", [None, {"pid": 1, "reloads": 0, "problems": []}, "no JSON"])
def test_a_process_that_is_no_daemon_of_ours_is_not_signalled(
    tmp_path: Path, result: dict[str, Any] | str | None
) -> None:
    if result is not None:
        (tmp_path / FILE_NAME).write_text(json.dumps(result))
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            done = run_reload(bystander.pid, RUNTIME_DIRECTORY=str(tmp_path))
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert done.returncode == 1
    assert "holds no reload result of the process" in done.stderr


def test_outside_of_a_unit_the_reload_command_says_what_it_needs() -> None:
    done = run_reload(1)

    assert done.returncode == 1
    assert "RUNTIME_DIRECTORY is not set" in done.stderr
