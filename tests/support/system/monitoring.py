"""Debian's Prometheus and Alertmanager as processes of a test, with the configurations of ops/."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from tests.support.project import ROOT
from tests.support.system.debian_packages import cannot_run
from tests.support.system.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

OPS = ROOT / "ops"
TOOLS = ROOT / ".cache/monitoring/usr/bin"
"""Where ops/bootstrap.sh --with-monitoring unpacks them."""
UNTIL_SECONDS = 120
TOOL_SECONDS = 600
"""Guards against hanging, for a machine that is busy, too."""
_SEEING_ITS_TEMPLATES = [
    # Debian's Alertmanager looks for its templates in /usr/share, where it is not installed.
    "unshare",
    *(["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]),
    "sh",
    "-c",
    (
        "mount -t tmpfs none /usr/share && "
        f"ln -s '{TOOLS.parent}/share/prometheus' /usr/share/ && "
        'exec "$@"'
    ),
    "sh",
]


def need_tools() -> None:
    """Skip the test, telling why, where the programs are missing; in CI that is a failure."""
    if not (TOOLS / "prometheus").exists():
        cannot_run("needs Debian's Prometheus: ops/bootstrap.sh --with-monitoring")


def tool(name: str, *arguments: str | Path, folder: Path | None = None) -> tuple[int, str]:
    """Run promtool or amtool; return its exit code and all it said."""
    result = subprocess.run(
        [TOOLS / name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
        cwd=folder,
    )
    return result.returncode, result.stdout


class Server:
    """One of the two, with its HTTP API."""

    def __init__(self, port: int, log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._log = log
        self._client = httpx.AsyncClient(base_url=f"http://{self.address}", timeout=60)

    async def get(self, path: str, **parameters: str) -> Any:
        answer = await self._client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"] if path.startswith("/api/v1") else answer.text

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        data = await self.get("/api/v1/query", query=expression)
        result: list[dict[str, Any]] = data["result"]
        return result

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ready(self) -> None:
        async def answers() -> bool:
            try:
                return (await self._client.get("/-/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await until(answers, self._log.read_text)


async def until(condition: Callable[[], Any], explain: Callable[[], object]) -> Any:
    """Ask again and again until ``condition`` is true, and return what it said."""
    with trio.move_on_after(UNTIL_SECONDS):
        while not (found := await condition()):  # noqa: ASYNC110 - these only answer
            await trio.sleep(0.2)
        return found
    pytest.fail(f"not within {UNTIL_SECONDS} s: {explain()}")


def _copy(config: Path, folder: Path, changes: Mapping[str, str]) -> Path:
    """Copy a configuration and the rules beside it; return the copy, with changes."""
    folder.mkdir()
    for rules in config.parent.glob("*.rules.yml"):
        (folder / rules.name).write_text(rules.read_text())
    copy = folder / config.name
    copy.write_text(config.read_text())
    change(copy, changes)
    return copy


def change(file: Path, changes: Mapping[str, str]) -> None:
    """Replace texts in a file; each has to be there."""
    text = file.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


@asynccontextmanager
async def _process(command: list[str | Path], port: int, log: Path) -> AsyncIterator[Server]:
    output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    process = await trio.lowlevel.open_process(
        command, stdout=output, stderr=output, cwd=log.parent
    )
    os.close(output)
    server = Server(port, log)
    try:
        await server.ready()
        yield server
    finally:
        await server.aclose()
        process.terminate()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(5):
                await process.wait()
            process.kill()
            await process.wait()


def prometheus_command(
    folder: Path, targets: Iterable[str], alertmanager: str, port: int
) -> list[str | Path]:
    """Return how to run Prometheus on the shipped configuration, made quicker, for ``targets``."""
    changes = {
        "interval: 15s": "interval: 500ms",
        "127.0.0.1:9464": '", "'.join(targets),
        "127.0.0.1:9093": alertmanager,
    }
    return [
        TOOLS / "prometheus",
        f"--config.file={_copy(OPS / 'prometheus/prometheus.yml', folder, changes)}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--rules.alert.resend-delay=1s",
    ]


@asynccontextmanager
async def prometheus(folder: Path, target: str, alertmanager: str) -> AsyncIterator[Server]:
    """Run Prometheus on the shipped configuration, made quicker and pointed at ``target``."""
    port = free_port()
    command = prometheus_command(folder, [target], alertmanager, port)
    async with _process(command, port, folder / "log") as server:
        yield server


@asynccontextmanager
async def alertmanager(folder: Path, webhook: str) -> AsyncIterator[Server]:
    """Run Alertmanager on the shipped configuration, made quicker and pointed at ``webhook``."""
    changes = {
        "group_wait: 30s": "group_wait: 200ms",
        "group_wait: 10s": "group_wait: 200ms",
        "group_interval: 5m": "group_interval: 500ms",
        "127.0.0.1:9095": webhook,
    }
    config, port = _copy(OPS / "alertmanager/alertmanager.yml", folder, changes), free_port()
    command: list[str | Path] = [
        *_SEEING_ITS_TEMPLATES,
        TOOLS / "prometheus-alertmanager",
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    async with _process(command, port, folder / "log") as server:
        yield server


class Webhook:
    """Receives what Alertmanager sends: alerts by path."""

    def __init__(self) -> None:
        self.alerts: dict[str, list[dict[str, Any]]] = {}

    def named(self, receiver: str, alert: str) -> list[dict[str, Any]]:
        """Return the alerts of that name that went to a receiver."""
        sent = self.alerts.get(f"/{receiver}", [])
        return [one for one in sent if one["labels"]["alertname"] == alert]


@contextmanager
def webhook() -> Iterator[tuple[str, Webhook]]:
    """Listen for alerts in a thread; gives the address and what came."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    received = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.alerts.setdefault(self.path, []).extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
