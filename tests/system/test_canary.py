"""What must never be told: secrets and prompts are planted, and looked for in what comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tarfile
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
import pytest
import trio

from ai_ticket_daemon.backends.kobold.client import KoboldClient
from ai_ticket_daemon.backends.wrappers.wrapper import ClientWrapper
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Succeeded, Usage
from ai_ticket_daemon.testing.daemon import open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from ai_ticket_daemon.testing.kobold.faults import ScriptedAnswer
from ai_ticket_daemon.testing.otlp import http_collector
from tests.support.system.endings import how_it_ended
from tests.support.system.ports import free_port
from tests.system.test_process import COMMAND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.testing.kobold import SimulatedKobold

pytestmark = pytest.mark.system

PASSWORD = "CANARYpassword3f9c"
TOKEN = "CANARYtoken8b1d0c7e"
WRONG_TOKEN = "CANARYwrongtoken55e1"
HEADER = "CANARYheader77aa"
PROMPT = "CANARYprompt41d2"
METADATA = "CANARYmetadata90ff"
PLANTED = (PASSWORD, TOKEN, WRONG_TOKEN, HEADER, PROMPT, METADATA)


def conf(folder: Path, simulated: SimulatedKobold, *lines: str, metrics_port: int = 0) -> Path:
    (folder / "password").write_text(PASSWORD)
    (folder / "tokens").write_text(f"canary:{TOKEN}\n")
    for secret in ("password", "tokens"):
        (folder / secret).chmod(0o600)
    path = folder / "ai-ticket.conf"
    path.write_text(
        "\n".join(
            [
                'http.bind = ["127.0.0.1:0"]',
                f'metrics.bind = "127.0.0.1:{metrics_port}"',
                'log.level = "debug"',
                'log.format = "json"',
                "log.capture_payloads = 5",
                f'log.capture_directory = "{folder}/captures"',
                f'store.url = "sqlite:///{folder}/events.db"',
                f'auth.tokens_file = "{folder}/tokens"',
                "pipeline.max_attempts = 2",
                "backends.probe_interval_seconds = 0.2",
                "backends.probe_fast_interval_seconds = 0.1",
                "pipeline.backoff_seconds = 0.01",
                *lines,
                "[[backends.server]]",
                'name = "primary"',
                f'url = "{simulated.url}"',
                f'password_file = "{folder}/password"',
            ]
        )
    )
    return path


@dataclass
class Life:
    """A daemon as a process, and all it has written."""

    process: trio.Process
    said: bytearray

    async def wait_for(self, words: bytes) -> None:
        with trio.move_on_after(60):
            # A pipe, read by another task.
            while words not in self.said and self.process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(0.02)
            if words in self.said:
                return
        said = self.said.decode(errors="replace")
        pytest.fail(f"no {words!r}: {how_it_ended(self.process.returncode, said)}")

    @property
    def url(self) -> str:
        (line,) = (line for line in self.said.splitlines() if b'"started"' in line)
        return "http://" + line.split(b'"addresses": ["')[1].split(b'"')[0].decode()


@asynccontextmanager
async def life(path: Path) -> AsyncIterator[Life]:
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={HEADER}"}
    environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [*COMMAND, "--config", str(path)], stdout=PIPE, stderr=PIPE, env=environ
        )
        one = Life(process, bytearray())

        async def read(stream: trio.abc.ReceiveStream) -> None:
            async for chunk in stream:
                one.said.extend(chunk)

        for stream in (process.stdout, process.stderr):
            assert stream is not None
            nursery.start_soon(read, stream)
        try:
            await one.wait_for(b'"started"')
            yield one
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def event(**fields: Any) -> dict[str, Any]:
    content = f"{PROMPT}: the printer burns."
    return {"content": content, "max_tokens": 8, "metadata": {"note": METADATA}, **fields}


async def everything(client: httpx.AsyncClient, simulated: SimulatedKobold) -> str:
    """Have answers, streams, mistakes, failures and a late event; return all errors answered."""
    errors = ""
    for fields in ({}, {"stream": True}):
        answer = await client.post("/event", json=event(**fields))
        assert PROMPT in answer.text  # the server answers with an echo: the canary lives
    told = {"detail": {"msg": f"cannot do {PROMPT} with {PASSWORD}"}}
    echo = ScriptedAnswer.of(500, json.dumps(told))
    scripts = (echo, "garbage", "html", "wrong_shape", "half_json")
    for script in scripts:
        simulated.faults.script(script, times=2)
        got = await client.post("/event", json=event())
        assert got.status_code >= 500
        errors += got.text
        simulated.faults.clear()
    for mistake in (event(temperature=PROMPT), event(stop=[{"x": PROMPT}]), event(max_tokens=-1)):
        errors += (await client.post("/event", json=mistake)).text
    errors += (await client.post("/event", content=b'{"content": "%s' % PROMPT.encode())).text
    errors += (await client.get(f"/no/{PROMPT}?token={TOKEN}")).text
    wrong = {"authorization": f"Bearer {WRONG_TOKEN}"}
    errors += (await client.post("/event", json=event(), headers=wrong)).text
    simulated.faults.stall(after_tokens=1, ignores_abort=False)
    errors += (await client.post("/event", json=event(timeout_seconds=0.3))).text
    simulated.faults.clear()
    return errors


async def bundle(socket: Path) -> str:
    """Return all that is in a support archive."""
    output = socket.with_name("bundle.tar.gz")
    command = [sys.executable, "-m", "ai_ticket_daemon.ctl.main", "--socket", str(socket)]
    await trio.run_process([*command, "bundle", "--output", str(output)], capture_stdout=True)
    with tarfile.open(output) as archive:
        files = [archive.extractfile(member) for member in archive]
        texts = [file.read().decode() for file in files if file is not None]
    shutil.rmtree(socket.parent)
    return "\n".join(texts)


@pytest.mark.parametrize("traces", ["console", "otlp"])
async def test_no_secret_and_no_prompt_leaves_the_daemon_but_in_answers(
    traces: str, tmp_path: Path
) -> None:
    settings = replace(KoboldSettings().scaled(0.1), password=PASSWORD, reply="echo")
    with http_collector() as collector, trio.fail_after(60):
        async with open_simulated_kobold(settings) as simulated:
            socket = Path(tempfile.mkdtemp(prefix="ait")) / "c.sock"
            lines = [f'telemetry.traces = "{traces}"', f'control.socket = "{socket}"']
            if traces == "otlp":
                lines.append(f'telemetry.otlp_endpoint = "{collector.endpoint}"')
            port = free_port()
            path = conf(tmp_path, simulated, *lines, metrics_port=port)
            async with (
                life(path) as daemon,
                httpx.AsyncClient(
                    base_url=daemon.url,
                    timeout=60,
                    headers={
                        "authorization": f"Bearer {TOKEN}",
                        "content-type": "application/json",
                    },
                ) as client,
            ):
                errors = await everything(client, simulated)
                while (await client.get("/health")).json()["status"] != "healthy":  # noqa: ASYNC110
                    await trio.sleep(0.05)
                simulated.faults.stall(after_tokens=1, ignores_abort=False)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(client.post, "/event", json=event()))
                    await simulated.wait_for(lambda s: s.running == 1)
                    daemon.process.send_signal(signal.SIGUSR1)  # the task tree, in the middle of it
                    await daemon.wait_for(b'"task_tree"')
                    nursery.cancel_scope.cancel()
                simulated.faults.clear()
                (tmp_path / "password").write_text(PASSWORD + "new")
                daemon.process.send_signal(signal.SIGHUP)
                await daemon.wait_for(b'"reload_applied"')
                path.write_text(path.read_text() + f'\nno_such_key = "{PASSWORD}"\n')
                daemon.process.send_signal(signal.SIGHUP)
                await daemon.wait_for(b'"reload_refused"')
                archive = await bundle(socket)
                page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                reports = (await client.get("/health")).text + (await client.get("/ready")).text
                daemon.process.send_signal(signal.SIGABRT)  # a crash, with its stacks
                with trio.fail_after(60):
                    assert await daemon.process.wait() == -signal.SIGABRT
                await daemon.wait_for(b"Current thread")
            said = daemon.said.decode()
    captures = "".join(file.read_text() for file in (tmp_path / "captures").iterdir())
    assert '"request"' in said  # at debug, it said everything it ever says
    if traces == "console":
        assert said.count('"kobold.get_completion"') > 5
    told = {"log, spans, crash": said, "metrics": page, "errors": errors, "reports": reports}
    told["spans"] = repr(collector.spans)
    assert '"task_tree"' in archive  # it, too, has what was said at debug
    told["archive"] = archive
    for name, text in told.items():
        assert text
        for canary in PLANTED:
            assert canary not in text, (name, canary, text[max(0, text.find(canary) - 300) :][:600])
    assert PROMPT in captures  # that is what they are for
    for canary in (PASSWORD, TOKEN, HEADER):
        assert canary not in captures


def kobold(client: BackendClient) -> KoboldClient:
    """Return the client of a KoboldCPP that others are wrapped around."""
    while isinstance(client, ClientWrapper):
        client = client._client
    assert isinstance(client, KoboldClient)
    return client


async def test_a_crash_at_an_event_shows_where_and_not_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_simulated_kobold(replace(KoboldSettings().instant(), password=PASSWORD)) as sim:
        config = load_config(conf(tmp_path, sim, 'telemetry.traces = "none"'), {})
        async with open_daemon(config) as daemon:

            async def fall(*_: object) -> NoReturn:
                await trio.lowlevel.checkpoint()
                raise KeyError("a fault of ours")

            for backend in daemon.daemon.pool:
                monkeypatch.setattr(kobold(backend.client), "_generate", fall)
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                base_url=daemon.url, headers=headers, timeout=60
            ) as client:
                answer = await client.post("/event", json=event())
            assert answer.status_code == 500
            assert "a fault of ours" not in answer.text
            said = daemon._stream.getvalue()
    (line,) = daemon.log("worker_crashed")
    assert "a fault of ours" in line["exception"]
    for canary in PLANTED:
        assert canary not in said + answer.text


async def test_nothing_shows_a_secret_or_a_text_by_its_repr(tmp_path: Path) -> None:
    async with open_simulated_kobold(KoboldSettings().instant()) as simulated:
        config = load_config(conf(tmp_path, simulated), {})
    happened = Event(
        "id", (Message(Role.USER, PROMPT),), Sampling(), 0.0, 1.0, metadata={"note": METADATA}
    )
    outcome = Succeeded(PROMPT, "primary", "stop", Usage(1, 1), 1.0)
    shown = repr((config, happened, outcome)) + str((config, happened, outcome))
    for canary in PLANTED:
        assert canary not in shown
