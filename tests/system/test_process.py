"""The real process: its command line, its signals, its exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.system.endings import how_it_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ai_ticket_daemon.testing.kobold import SimulatedKobold

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "ai_ticket_daemon"]


@dataclass
class Process:
    process: trio.Process
    conf: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    told: str = ""
    _more: trio.Event = field(default_factory=trio.Event)

    async def read(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.told += "".join(f"{line.decode(errors='replace')}\n" for line in lines)
            self.lines += [json.loads(line) for line in lines if line.startswith(b"{")]
            self._more.set()
            self._more = trio.Event()
        await self.process.wait()
        self._more.set()

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        with trio.fail_after(60):
            while True:
                found = [line for line in self.lines if line["event"] == event]
                if len(found) >= count:
                    return found[count - 1]
                if self._more.is_set():
                    raise AssertionError(
                        f"no line {event}: {how_it_ended(self.process.returncode, self.told)}"
                    )
                await self._more.wait()

    @property
    def url(self) -> str:
        (started,) = (line for line in self.lines if line["event"] == "started")
        return f"http://{started['addresses'][0]}"

    async def exit_code(self) -> int:
        with trio.fail_after(60):
            return await self.process.wait()


def conf_text(*lines: str, backend: str = "http://127.0.0.1:1") -> str:
    return "\n".join(
        [
            'http.bind = ["127.0.0.1:0"]',
            'metrics.bind = "127.0.0.1:0"',
            'telemetry.traces = "none"',
            *lines,
            'store.url = "memory:"',
            "[[backends.server]]",
            'name = "primary"',
            f'url = "{backend}"',
        ]
    )


@asynccontextmanager
async def running(
    folder: Path, *lines: str, backend: str = "http://127.0.0.1:1"
) -> AsyncIterator[Process]:
    conf = folder / "ai-ticket.conf"
    conf.write_text(conf_text(*lines, backend=backend))
    async with trio.open_nursery() as nursery:
        opened = await trio.lowlevel.open_process([*COMMAND, "--config", str(conf)], stderr=PIPE)
        process = Process(opened, conf)
        nursery.start_soon(process.read)
        try:
            await process.logged("started")
            yield process
        finally:
            if opened.returncode is None:
                opened.kill()
            with trio.CancelScope(shield=True):
                await opened.wait()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@asynccontextmanager
async def generating(folder: Path) -> AsyncIterator[tuple[Process, SimulatedKobold, list[int]]]:
    """A daemon with one generation under way; the statuses its client gets come in the list."""
    settings = KoboldSettings(tokens_per_second=10).scaled(0.1)
    statuses: list[int] = []
    async with (
        open_simulated_kobold(settings) as simulated,
        running(folder, backend=simulated.url) as process,
        trio.open_nursery() as nursery,
    ):

        async def post() -> None:
            async with httpx.AsyncClient(timeout=60) as client:
                try:
                    body = {"content": "hello", "max_tokens": 10}
                    answer = await client.post(f"{process.url}/event", json=body)
                    statuses.append(answer.status_code)
                except httpx.HTTPError:
                    statuses.append(0)

        nursery.start_soon(post)
        await simulated.wait_for(lambda s: s.running == 1)
        yield process, simulated, statuses


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_the_running_generation_end_and_exits_0(
    number: signal.Signals, tmp_path: Path
) -> None:
    async with generating(tmp_path) as (process, _, statuses):
        process.process.send_signal(number)
        assert await process.exit_code() == 0
    assert statuses == [200]


async def test_a_second_stop_ends_at_once_and_frees_the_backend(tmp_path: Path) -> None:
    async with generating(tmp_path) as (process, simulated, statuses):
        process.process.send_signal(signal.SIGTERM)
        await process.logged("stopping")
        process.process.send_signal(signal.SIGTERM)
        assert await process.exit_code() == 0
        with trio.fail_after(60):
            await simulated.wait_for(lambda s: s.running == 0)
        assert simulated.observations.aborted_total == 1
    assert statuses != [200]


async def test_hup_applies_a_good_file_and_refuses_a_bad_one(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        process.conf.write_text(
            conf_text("pipeline.max_concurrency = 3", "http.max_connections = 5")
        )
        process.process.send_signal(signal.SIGHUP)
        applied = await process.logged("reload_applied")
        assert applied["changes"] == ["pipeline.max_concurrency: 8 -> 3"]
        assert applied["needs_restart"] == ["http.max_connections"]

        process.conf.write_text(conf_text("pipeline.max_concurency = 4"))
        process.process.send_signal(signal.SIGHUP)
        refused = await process.logged("reload_refused")
        (problem,) = refused["problems"]
        assert "max_concurency" in problem
        assert f"{process.conf}:4" in problem

        process.process.send_signal(signal.SIGHUP)
        await process.logged("reload_refused", count=2)
        process.process.send_signal(signal.SIGTERM)
        assert await process.exit_code() == 0


async def test_hup_takes_over_a_changed_tokens_file_and_refuses_a_broken_one(
    tmp_path: Path,
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("bot:first-token-of-bot\n")
    async with (
        running(tmp_path, f'auth.tokens_file = "{tokens}"') as process,
        httpx.AsyncClient(base_url=process.url, timeout=60) as client,
    ):

        async def is_known(token: str) -> bool:
            reply = await client.post("/event", headers={"x-api-key": token})
            assert reply.status_code in (401, 415)
            return reply.status_code == 415

        assert await is_known("first-token-of-bot")
        tokens.write_text("bot:second-token-of-bot\nother:short\n")
        process.process.send_signal(signal.SIGHUP)
        (problem,) = (await process.logged("reload_refused"))["problems"]
        assert "auth.tokens_file: line 2 of the file: the token must have at least" in problem
        assert await is_known("first-token-of-bot")
        tokens.write_text("bot:second-token-of-bot\n")
        process.process.send_signal(signal.SIGHUP)
        (change,) = (await process.logged("reload_applied"))["changes"]
        assert change.startswith("auth.tokens_file: ")
        assert await is_known("second-token-of-bot")
        assert not await is_known("first-token-of-bot")
        process.process.send_signal(signal.SIGTERM)
        assert await process.exit_code() == 0
    assert "token-of-bot" not in json.dumps(process.lines)


async def test_usr1_shows_what_every_task_does(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        process.process.send_signal(signal.SIGUSR1)
        tree = (await process.logged("task_tree"))["tree"]
    for actor in ("http", "pipeline", "prober", "sampler", "metrics", "signals"):
        assert f" {actor} at " in tree
    assert "wakeup.py" in tree


async def test_usr2_switches_debug_logging_on_and_off(tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        for count, level in enumerate(["debug", "info"], start=1):
            process.process.send_signal(signal.SIGUSR2)
            assert (await process.logged("log_level_changed", count))["log_level"] == level


async def test_a_taken_port_ends_with_69_and_names_it(tmp_path: Path) -> None:
    conf = tmp_path / "ai-ticket.conf"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        conf.write_text(conf_text().replace('["127.0.0.1:0"]', f'["{address}"]'))
        http = run("--config", str(conf))
        conf.write_text(conf_text().replace('"127.0.0.1:0"\n', f'"{address}"\n', 1))
        metrics = run("--config", str(conf))
    for result in (http, metrics):
        assert result.returncode == 69
        assert address in result.stderr
        assert "Traceback" not in result.stderr


def test_a_bad_file_ends_with_78_and_lists_every_mistake(tmp_path: Path) -> None:
    conf = tmp_path / "ai-ticket.conf"
    conf.write_text(conf_text("pipeline.max_concurrency = 0", "log.level = 'loud'"))
    for arguments in (["--config", str(conf)], ["--config", str(conf), "--check-config"]):
        result = run(*arguments)
        assert result.returncode == 78
        assert f"{conf}:4: pipeline.max_concurrency" in result.stderr
        assert f"{conf}:5: log.level" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_good_file_passes_the_check_and_nothing_is_started(tmp_path: Path) -> None:
    conf = tmp_path / "ai-ticket.conf"
    conf.write_text(conf_text())
    result = run("--config", str(conf), "--check-config")
    assert result.returncode == 0
    assert "The configuration is valid." in result.stdout


def test_the_check_fails_where_a_start_would(tmp_path: Path) -> None:
    conf = tmp_path / "ai-ticket.conf"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        conf.write_text(conf_text().replace('["127.0.0.1:0"]', f'["{address}"]'))
        result = run("--config", str(conf), "--check-config")
    assert result.returncode == 78
    assert f"http.bind: {address} is taken by the process {os.getpid()}" in result.stderr
    assert "The configuration is valid." not in result.stdout


def test_version_and_help_answer_without_a_configuration() -> None:
    assert run("--version").stdout.startswith("ai-ticket-daemon 0.")
    assert "--check-config" in run("--help").stdout
    assert run("--nonsense").returncode == 2


CRASHES = """\
import sys
from ai_ticket_daemon import __main__
from ai_ticket_daemon.telemetry import sampler
sampler.INTERVAL_SECONDS = "broken"
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_crashing_actors_escalate_to_exit_code_70(tmp_path: Path) -> None:
    conf = tmp_path / "ai-ticket.conf"
    conf.write_text(conf_text())
    result = subprocess.run(
        [sys.executable, "-c", CRASHES, "--config", conf],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 70
    assert "restarts within 60 s" in result.stderr
    assert result.stderr.count('"actor_restarted"') >= 5


async def test_nobody_who_reads_its_log_is_needed(tmp_path: Path) -> None:
    """A full pipe would block whoever writes to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = tmp_path / "ai-ticket.conf"
    text = conf_text('log.level = "debug"').replace("127.0.0.1:0", f"127.0.0.1:{port}", 1)
    conf.write_text(text)
    process = await trio.lowlevel.open_process([*COMMAND, "--config", str(conf)], stderr=PIPE)
    try:
        with trio.fail_after(300):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                await answers(client)
                for _ in range(600):  # a line of more than 200 bytes each; a pipe takes 64 KiB
                    assert (await client.get("/live")).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert process.stderr is not None
        kept = b"".join([part async for part in process.stderr])
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    assert b'"event": "started"' in kept
    assert len(kept) <= 2**16


async def answers(client: httpx.AsyncClient) -> None:
    """Wait until it does."""
    while True:
        try:
            await client.get("/live")
        except httpx.TransportError:
            await trio.sleep(0.05)
        else:
            return


async def test_a_daemon_that_ends_while_a_test_waits_is_told_at_once(tmp_path: Path) -> None:
    """So that a stray signal is seen as one, in the message of the test it strikes."""
    async with running(tmp_path) as daemon:
        daemon.process.send_signal(signal.SIGKILL)
        with pytest.raises(AssertionError, match=r"(?s)was ended by SIGKILL.*\"started\""):
            await daemon.logged("never_logged")
