"""Who is measured beside the daemon, and how each of them is started."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.rivals.processor import SERVED_ON, cpu_seconds_of_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).parent
INSTALLED = HERE.parents[2] / ".cache" / "bench"
START_SECONDS, STOP_SECONDS = 120, 20

TEXT = "The printer on the third floor prints blank pages, please help."
EVENT = {"content": TEXT, "max_tokens": 32}
CHAT = {"model": "bench", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 32}
STREAMED = {"stream": True, "max_tokens": 4096}
"""What makes a stream of one of the two, long enough for any measurement."""
MODELS = {"object": "list", "data": [{"id": "bench", "object": "model", "owned_by": "bench"}]}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Replace the toner, then print again."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28},
}


class Missing(Exception):
    """It cannot be measured here; says what would have to be installed."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that takes requests for the server behind it.

    Args:
        name: in the table.
        command: starts it.
        port: where it listens.
        path: where events or chats go.
        body: one of them.
        headers: that it needs besides.
        environment: of its process.
    """

    name: str
    command: Sequence[object]
    port: int
    path: str = "/v1/chat/completions"
    body: Mapping[str, object] = field(default_factory=lambda: CHAT)
    headers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant whose process runs."""

    contestant: Contestant
    pid: int

    def cpu_seconds(self) -> float:
        return cpu_seconds_of_tree(self.pid)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise Missing(f"{name} (Debian: apt-get install {package})")
    return found


@contextmanager
def running(contestant: Contestant, core: int = SERVED_ON) -> Iterator[Running]:
    """Run it on one core until the end of the block, from when it takes connections."""
    log = INSTALLED.parent / f"bench-{contestant.name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, contestant.command)],
            stdout=output,
            stderr=output,
            env={**os.environ, **contestant.environment},
        )
    try:
        until = time.monotonic() + START_SECONDS
        while not _takes_connections(contestant.port):
            assert process.poll() is None, f"{contestant.name} ended; see {log}"
            assert time.monotonic() < until, f"{contestant.name} does not listen; see {log}"
            time.sleep(0.1)
        yield Running(contestant, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def instant_backend(folder: Path) -> Contestant:
    """Return the server behind all of them: it answers at once."""
    environment = {}
    for name, value in (("BENCH_MODELS", MODELS), ("BENCH_COMPLETION", COMPLETION)):
        file = folder / f"{name.lower()}.json"
        file.write_text(json.dumps(value))
        environment[name] = str(file)
    return _haproxy("the server alone", HERE / "instant_backend.cfg", environment)


def paced_backend() -> Contestant:
    """Return a server whose streams bring 50 deltas a second each."""
    port = free_port()
    return Contestant(
        "the server of streams", [sys.executable, HERE / "paced_backend.py", str(port)], port
    )


def haproxy(backend_port: int, folder: Path) -> Contestant:
    return _haproxy("HAProxy", HERE / "haproxy.cfg", {"BENCH_BACKEND_PORT": str(backend_port)})


def _haproxy(name: str, conf: Path, environment: Mapping[str, str]) -> Contestant:
    port = free_port()
    return Contestant(
        name,
        [program("haproxy", "haproxy"), "-db", "-f", conf],
        port,
        environment={"BENCH_PORT": str(port), **environment},
    )


def bare_relay(backend_port: int, folder: Path) -> Contestant:
    port = free_port()
    python = _installed("queues/bin/python")
    command = [python, HERE / "bare_relay.py", str(port), str(backend_port)]
    return Contestant("bare relay on trio", command, port)


def portkey(backend_port: int, folder: Path) -> Contestant:
    port = free_port()
    script = _installed("portkey/node_modules/@portkey-ai/gateway/build/start-server.js")
    return Contestant(
        "Portkey",
        [program("node", "nodejs"), script, f"--port={port}", "--headless"],
        port,
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{backend_port}/v1",
            "authorization": "Bearer none",
        },
        environment={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"},
    )


def litellm(backend_port: int, folder: Path) -> Contestant:
    port = free_port()
    conf = folder / "litellm.yaml"
    model = {
        "model": "openai/bench",
        "api_base": f"http://127.0.0.1:{backend_port}/v1",
        "api_key": "none",
    }
    # YAML takes JSON.
    conf.write_text(json.dumps({"model_list": [{"model_name": "bench", "litellm_params": model}]}))
    return Contestant(
        "LiteLLM proxy",
        [
            _installed("litellm/bin/litellm"),
            *("--config", conf, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"),
        ],
        port,
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    )


def _installed(file: str) -> Path:
    found = INSTALLED / file
    if not found.exists():
        raise Missing(f"{found} (ops/bench.sh installs it)")
    return found


def kobold() -> Contestant:
    """Return a simulated KoboldCPP that answers at once."""
    port = free_port()
    options = ["--instant", "--multiuser", "63", "--port", str(port)]
    command = [sys.executable, "-m", "ai_ticket_daemon.testing.kobold", *options]
    return Contestant("the simulated KoboldCPP", command, port)


def collector(folder: Path) -> Contestant:
    """Return what takes spans and keeps none."""
    port = free_port()
    command = [sys.executable, HERE.parent / "telemetry_sink.py", folder / "journal", str(port)]
    return Contestant("the collector", command, port)


def daemon(
    name: str,
    *lines: str,
    kind: str = "openai",
    store: Path | None = None,
    checkout: Path | None = None,
) -> Callable[[int, Path], Contestant]:
    """Return what makes the daemon in front of a server, durable and with metrics.

    Args:
        name: in the table.
        lines: of its conf file, besides; each a line of its own.
        kind: of the server behind it.
        store: a file that it shares with another daemon; None for one of its own.
        checkout: another one, whose daemon it is; None for this one.
    """

    def made(backend_port: int, folder: Path) -> Contestant:
        port = free_port()
        conf = folder / f"{name.replace(' ', '-')}.conf"
        own = [
            f'store.url = "sqlite:///{store or conf.with_suffix(".db")}"',
            "store.max_queued = 10000000",
            f'http.bind = ["127.0.0.1:{port}"]',
            'metrics.bind = "127.0.0.1:0"',
            f'control.socket = "{folder / name.replace(" ", "-")}.sock"',
            "rate_limit.requests = 0",
            "pipeline.max_concurrency = 64",
            *(lines or ['telemetry.traces = "none"']),
            "[[backends.server]]",
            'name = "primary"',
            f'kind = "{kind}"',
            f'url = "http://127.0.0.1:{backend_port}"',
            "max_in_flight = 64",
        ]
        conf.write_text("\n".join(own))
        return Contestant(
            name,
            # -P: what is imported is not to follow from where this is started.
            [sys.executable, "-P", "-m", "ai_ticket_daemon", "--config", conf],
            port,
            "/event",
            EVENT,
            environment={"PYTHONPATH": str(checkout or HERE.parents[2])},
        )

    return made
