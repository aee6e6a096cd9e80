"""A container in which the daemon is installed as a service, in front of a simulated KoboldCPP."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from container import COMMAND_SECONDS, LOOK_SECONDS, ROOT, Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONF = "/etc/ai-ticket/ai-ticket.conf"
PYTHON = "/opt/ai-ticket/venv/bin/python"
URL = "http://127.0.0.1:5000"
CHECKOUT = "/root/checkout"
WHEELHOUSE = "/root/wheelhouse"
WAIT_SECONDS = 20.0
IN_A_CHECKOUT = (
    "ai_ticket_daemon", "docs", "ops", "systemd", "ai-ticket.conf", "pyproject.toml", "README.md",
    "LICENSE",
)  # fmt: skip

SETTINGS = """\
rate_limit.requests = 0
backends.probe_interval_seconds = 0.2
backends.probe_fast_interval_seconds = 0.05

[[backends.server]]
name = "primary"
url = "http://127.0.0.1:5001"
"""
"""The conf file of most tests; other settings go before it."""

ASK = """\
import json, sys, urllib.error, urllib.request
url, body = sys.argv[1], sys.argv[2].encode() or None
headers = {"content-type": "application/json", **json.loads(sys.argv[3])}
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps({"status": answer.status, "text": answer.read().decode()}))
"""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Load:
    """What the clients of :func:`ServiceHost.load` saw; filled in when its block ends."""

    seen: dict[str, Any]


@dataclass(frozen=True)
class ServiceHost:
    """The host: its systemd, its journal, its clients."""

    box: Container
    python: tuple[str, ...] = (PYTHON,)
    """What the clients run on."""

    # ------------------------------------------------------------------------------ systemd

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.box.run("systemctl", *words, check=check)

    def shows(self, name: str, unit: str = "ai-ticket.service") -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--property", name, "--value", unit).stdout.strip()

    @property
    def pid(self) -> int:
        return int(self.shows("MainPID"))

    def drop_in(self, text: str, unit: str = "ai-ticket.service") -> None:
        """Do what ``systemctl edit`` does; the next test begins without it."""
        self.box.write(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def reset(self) -> None:
        """Put everything back: the conf file, the units, the service running."""
        self.box.shell("rm -rf /run/systemd/system/ai-ticket*.d; systemctl daemon-reload")
        self.systemctl("stop", "ai-ticket@*.service", "ai-ticket.service")
        self.box.shell("systemctl reset-failed 'ai-ticket*' || true")
        self.configure()
        self.box.shell("rm -rf /etc/ai-ticket/credentials/*")
        self.systemctl("start", "ai-ticket.socket", "ai-ticket.service")
        self.until(lambda: self.get("/ready").status == 200, "the daemon is ready")

    def configure(self, settings: str = "", *, whole: str | None = None) -> None:
        """Replace the conf file."""
        self.box.write(CONF, whole if whole is not None else settings + SETTINGS)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the entries of the journal that match, oldest first."""
        self.box.run("journalctl", "--sync")
        found = self.box.run("journalctl", "--all", "--output=json", *matches, check=False)
        return [json.loads(line) for line in found.stdout.splitlines()]

    # ------------------------------------------------------------------------------ clients

    def get(self, path: str, port: int = 5000) -> Answer:
        return self._ask(f"http://127.0.0.1:{port}{path}", "", {})

    def post(self, body: object, path: str = "/event", **headers: str) -> Answer:
        return self._ask(f"{URL}{path}", json.dumps(body), headers)

    def _ask(self, url: str, body: str, headers: dict[str, str]) -> Answer:
        done = self.box.run(*self.python, "-c", ASK, url, body, json.dumps(headers), check=False)
        if done.returncode != 0:
            return Answer(0, done.stderr)
        return Answer(**json.loads(done.stdout))

    @contextmanager
    def load(self, clients: int) -> Iterator[Load]:
        """Have clients post events for the length of a block."""
        result = Load({})
        script = self.box.root / "root" / "load_client.py"
        shutil.copy(ROOT / "tests" / "system" / "load_client.py", script)
        command = self.box.enter(PYTHON, "/root/load_client.py", str(clients), URL)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield result
                output, _ = process.communicate(timeout=COMMAND_SECONDS)
            finally:
                process.kill()
        result.seen.update(json.loads(output))

    # ------------------------------------------------------------------------------ waiting

    def until(
        self, holds: Callable[[], bool], what: str, within_seconds: float = WAIT_SECONDS
    ) -> float:
        """Wait until it holds; return how many seconds that took."""
        started = time.monotonic()
        while not holds():
            took = time.monotonic() - started
            assert took < within_seconds, f"after {took:.1f} s still not: {what}"
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - started

    # ------------------------------------------------------------------------------ setting up

    def install(self, *options: str, checkout: str = CHECKOUT) -> str:
        done = self.box.run(f"{checkout}/ops/install.sh", "--wheelhouse", WHEELHOUSE, *options)
        return done.stdout

    def start_kobold(self, *options: str, port: int = 5001) -> None:
        """Start a simulated KoboldCPP and wait until it listens."""
        unit = f"kobold-{port}"
        self.box.shell(f"systemctl stop {unit} 2>/dev/null || true")
        self.box.run(
            "systemd-run", "--quiet", f"--unit={unit}", "--collect", "--service-type=exec",
            PYTHON, "-m", "ai_ticket_daemon.testing.kobold", "--port", str(port), *options,
        )  # fmt: skip
        self.until(lambda: self.get("/api/extra/perf", port).status == 200, "KoboldCPP is up")


def copy_checkout(to: Path, version: str | None = None) -> None:
    """Copy what an installation needs; with another version number, if one is given."""
    ignore = shutil.ignore_patterns("__pycache__")
    to.mkdir(parents=True)
    for name in IN_A_CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignore)
        else:
            shutil.copy(source, to / name)
    if version is not None:
        for name in ("pyproject.toml", "ai_ticket_daemon/__init__.py"):
            text = (to / name).read_text()
            assert '"0.1.0"' in text
            (to / name).write_text(text.replace('"0.1.0"', f'"{version}"', 1))


def build_wheel(checkout: Path, wheelhouse: Path) -> None:
    """Build the package of a checkout into a wheelhouse."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", wheelhouse, checkout],
        check=True, timeout=COMMAND_SECONDS,
    )  # fmt: skip
