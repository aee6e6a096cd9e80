"""A container in which the daemon is installed as a service, in front of a simulated KoboldCPP."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.project import ROOT
from tests.support.system.container import COMMAND_SECONDS, LOOK_SECONDS, Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CONF = "/etc/ai-ticket/ai-ticket.conf"
PYTHON = "/opt/ai-ticket/venv/bin/python"
URL = "http://127.0.0.1:5000"
CHECKOUT = "/root/checkout"
WHEELHOUSE = "/root/wheelhouse"
WAIT_SECONDS = 60.0
"""A guard against hanging, for a machine that is busy, too."""
SELDOM_SECONDS = 0.5
PAUSE_SECONDS = 0.02
"""Eight clients still ask hundreds of times a second, and leave a processor to what they watch."""
LONG_PAUSE_SECONDS = 0.25
"""Where a single restart comes after a long installation: each of the clients meets it."""
GIVING_UP_SECONDS = 150.0
"""How long a daemon that does not start may take for the thirty starts that systemd allows."""
IN_A_CHECKOUT = (
    "ai_ticket_daemon", "docs", "ops", "systemd", "ai-ticket.conf", "pyproject.toml", "README.md",
    "LICENSE",
)  # fmt: skip

SETTINGS = """\
rate_limit.requests = 0
backends.probe_interval_seconds = 0.2
backends.probe_timeout_seconds = 10
backends.probe_fast_interval_seconds = 0.05

[[backends.server]]
name = "primary"
url = "http://127.0.0.1:5001"
"""
"""The conf file of most tests; other settings go before it."""

ASK = ("curl", "--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}")
"""A tenth of what starting Python costs, and tests look often."""


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
        """Put everything back: the conf file, the units, the service, its one server running."""
        self.box.shell("rm -rf /run/systemd/system/ai-ticket*.d; systemctl daemon-reload")
        others = "kobold-500[2-9].service"
        self.systemctl("stop", "ai-ticket@*.service", "ai-ticket.service", others)
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
        return self.ask(f"http://127.0.0.1:{port}{path}")

    def post(self, body: object, path: str = "/event", **headers: str) -> Answer:
        return self.ask(f"{URL}{path}", body, headers)

    def ask(
        self, url: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask for ``url``, or post ``body`` to it; the status is 0 if there is no answer."""
        command, text = list(ASK), None
        given = {"content-type": "application/json", **(headers or {})}
        for name, value in given.items():
            command += ["--header", f"{name}: {value}"]
        if body is not None:
            command, text = [*command, "--data-binary", "@-"], json.dumps(body)
        done = self.box.run(*command, url, check=False, stdin=text)
        if done.returncode != 0:
            return Answer(0, done.stderr)
        told, _, status = done.stdout.rpartition("\n")
        return Answer(int(status), told)

    @contextmanager
    def load(self, clients: int, pause_seconds: float = PAUSE_SECONDS) -> Iterator[Load]:
        """Have clients post events for the length of a block."""
        result = Load({})
        script = self.box.root / "root" / "load_client.py"
        shutil.copy(Path(__file__).with_name("load_client.py"), script)
        command = self.box.enter(
            PYTHON, "/root/load_client.py", str(clients), URL, str(pause_seconds)
        )
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
            # To look takes a processor 20 ms: what takes long is not looked at so often.
            time.sleep(max(LOOK_SECONDS, min(took / 10, SELDOM_SECONDS)))
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
            *self.python, "-m", "ai_ticket_daemon.testing.kobold", "--port", str(port), *options,
        )  # fmt: skip
        self.until(lambda: self.get("/api/extra/perf", port).status == 200, "KoboldCPP is up")


def submit(host: ServiceHost, count: int) -> list[str]:
    """Hand in events to be run later; return their ids."""
    events = [{"content": f"ticket {number}", "max_tokens": 4} for number in range(count)]
    answer = host.post(events, "/events", prefer="respond-async")
    assert answer.status == 202, answer.text
    return [event["event_id"] for event in answer.json]


def states(host: ServiceHost, event_ids: list[str]) -> list[str]:
    """Return the states these events are in, each one once."""
    return sorted({host.get(f"/event/{event_id}").json["state"] for event_id in event_ids})


def queued_for_later(host: ServiceHost, port: int, count: int = 24) -> list[str]:
    """Hand in events while no server listens on ``port``, where alone they could be run."""
    host.configure(whole=SETTINGS.replace(":5001", f":{port}"))
    host.systemctl("reload", "ai-ticket.service")
    event_ids = submit(host, count)
    assert states(host, event_ids) == ["queued"]
    return event_ids


def operate_as_installed(host: ServiceHost) -> None:
    """Use ``ai-ticketctl`` as root, as who may act, as who may look, and as anybody else."""
    host.box.shell(
        "id olga 2>/dev/null || useradd --groups ai-ticket olga; "
        "id vera 2>/dev/null || useradd --groups ai-ticket-view vera; "
        "id stranger 2>/dev/null || useradd stranger"
    )

    def ctl(user: str, *words: str) -> subprocess.CompletedProcess[str]:
        to_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        return host.box.run(*to_user, "ai-ticketctl", *words, check=False)

    for user in ("root", "olga"):
        status = ctl(user, "status")
        assert status.returncode == 0, (user, status)
        assert re.search(r"\bhealthy\b", status.stdout), status
        assert ctl(user, "log-level", "info").returncode == 0
        uid = host.box.run("id", "-u", user).stdout.strip()
        changed = host.journal("AI_TICKET_LOG=control_change")[-1]
        asked = host.journal("AI_TICKET_LOG=control_asked")[-1]
        assert changed["AI_TICKET_UID"] == (uid if user == "root" else "65534")
        assert (asked["_UID"], asked["_PID"]) == (uid, changed["AI_TICKET_PID"])
        assert asked["AI_TICKET_OPERATION"] == changed["AI_TICKET_OPERATION"] == "log-level"

    look_as_installed(host, partial(ctl, "vera"))

    refused = ctl("stranger", "status")
    assert refused.returncode == 69
    assert (
        "/run/ai-ticket/control.sock may not be opened by this user: use sudo, or join the group "
        "ai-ticket, or ai-ticket-view to look alone\n"
    ) in refused.stderr
    assert "Traceback" not in refused.stderr

    host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
    gone = ctl("olga", "status")
    host.systemctl("start", "ai-ticket.socket", "ai-ticket.service")
    assert gone.returncode == 69
    assert "the daemon is not running here" in gone.stderr


def look_as_installed(
    host: ServiceHost, ctl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Look as a member of the group that may, and fail to act."""
    [event_id] = submit(host, 1)
    for looking in (("status",), ("events", "list"), ("why", event_id), ("audit",)):
        looked = ctl(*looking)
        assert (looked.returncode, looked.stderr) == (0, ""), (looking, looked)
    pid = host.pid
    acting: Sequence[tuple[str, ...]] = (
        ("pause",), ("submit", "Hello"), ("backup", "--output", "/tmp/copy.db")
    )  # fmt: skip
    for words in acting:
        refused = ctl(*words)
        assert refused.returncode == 1, (words, refused)
        assert refused.stderr.endswith(
            "is not: /run/ai-ticket/control.sock takes it from root and from members of the group "
            "ai-ticket. (forbidden)\n"
        )
    assert (host.pid, host.get("/ready").status) == (pid, 200)
    told = host.journal("AI_TICKET_LOG=control_change", "AI_TICKET_SOCKET=view")
    assert ("pause", "forbidden") in {
        (line["AI_TICKET_OPERATION"], line["AI_TICKET_RESULT"]) for line in told
    }
    assert host.box.shell(
        "stat --format '%U %G %a' /run/ai-ticket-view/ai-ticket.sock"
    ).strip() == ("ai-ticket ai-ticket-view 660")


def copy_checkout(to: Path, version: str | None = None, *, broken: bool = False) -> None:
    """Copy what an installation needs.

    With another version number, if one is given; that version also adds to the store's schema, and
    a broken one opens the store and then fails.
    """
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
        add_to_schema(to / "ai_ticket_daemon")
    if broken:
        break_start(to / "ai_ticket_daemon")


def add_to_schema(package: Path) -> None:
    """Make the store of this copy of the package what a later version's might be."""
    more = (
        'LATER = Step("ALTER TABLE event ADD COLUMN later TEXT", len(MIGRATIONS))\n'
        "MIGRATIONS = (*MIGRATIONS, LATER)\n"
    )
    before = '"""Step N brings a file'
    replace_in(package / "store" / "sqlite" / "schema.py", before, more + before)


def break_start(package: Path) -> None:
    """Make this copy of the package fail once it has opened the store."""
    fault = 'raise RuntimeError("this version is broken") #'
    replace_in(package / "app.py", "await self._servers.start(", fault)


def replace_in(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, (path, before)
    path.write_text(text.replace(before, after))


def build_wheel(checkout: Path, wheelhouse: Path) -> None:
    """Build the package of a checkout into a wheelhouse."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", wheelhouse, checkout],
        check=True, timeout=COMMAND_SECONDS,
    )  # fmt: skip
