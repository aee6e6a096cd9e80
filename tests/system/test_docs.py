"""The documents: every link leads somewhere, every command works, every conf file is valid.

Commands are the lines that begin with ``$ `` in ``console`` blocks, and whole ``sh`` blocks. Those
of one document run in order, against a daemon with two simulated servers of its own.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import tomllib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trustme

from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.telemetry.reference import families, reference
from tests.support.project import ROOT
from tests.support.system.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.system

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RUN_BY_DRILLS = ROOT / "docs" / "runbook.md"
"""Its commands are for a daemon in trouble; tests/drills runs every one of them."""
PRIMARY_PID = "12345"
"""What the documents show where a reader finds another number."""

RUN_ELSEWHERE = {
    # how the command begins: (why it is not run here, the test that runs it)
    "./ops/quickstart.sh": ("runs until Ctrl-C", "tests/system/test_quickstart.py"),
    "./ops/test.sh": ("runs this test", ".ci/run"),
    "./ops/bench.sh": ("measures for ten minutes", "tests/benchmarks/test_rivals.py"),
    "./ops/bootstrap.sh": ("makes the environment of this test", ".ci/run"),
    "ai-ticket-daemon --demo": ("runs until Ctrl-C", "tests/system/test_docs.py"),
    "ai-ticket-daemon --audit": ("needs a store on disk", "tests/unit/store/sqlite/test_audit.py"),
    "AI_TICKET_CRASH_KILLS": ("is a test of its own", "tests/system/test_crash.py"),
    "AI_TICKET_FUZZ_CASES": ("takes an hour", "tests/attacks/test_fuzz_http.py"),
    "sudo ": ("concerns the host", "tests/system/test_systemd_service.py"),
    "systemctl ": ("needs the service installed", "tests/system/test_systemd_service.py"),
    "journalctl ": ("needs the service installed", "tests/system/test_systemd_service.py"),
    "ops/build-deb.sh ": ("builds a package", "tests/system/test_debian_package.py"),
    "ops/install.sh ": ("installs packages", "tests/system/test_systemd_service.py"),
}

GUARD_SECONDS = 180
"""A guard against hanging: a command may start a program, and the machine may be busy."""
START_SECONDS = 60
EXAMPLE_SERVER = '\n[[backends.server]]\nname = "example"\nurl = "http://127.0.0.1:5001"\n'


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its opening fence."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a document and the output shown below it."""

    text: str
    shown: str
    place: str

    @property
    def run_elsewhere(self) -> str | None:
        return next((start for start in RUN_ELSEWHERE if self.text.startswith(start)), None)


def blocks(document: Path) -> Iterator[Block]:
    language, begin, lines = None, 0, []
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif language is None:
            language, begin, lines = line.strip().strip("`"), number, []
        else:
            yield Block(language, "\n".join(lines), begin)
            language = None
    assert language is None, f"{document}:{begin}: this block is never closed"


def prose(document: Path) -> str:
    """Return the text without what stands in code."""
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(document: Path) -> set[str]:
    """Return what a link may name after ``#``, as GitHub makes it from the headings."""
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        same = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.add(f"{slug}-{same}" if same else slug)
    return found


def commands(document: Path) -> Iterator[Command]:
    if document == RUN_BY_DRILLS:
        return
    for block in blocks(document):
        place = f"{document.relative_to(ROOT)}:{block.line}"
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                [command] = re.findall(r"\A(?:.*\\\n)*.*", part)
                yield Command(command, part.removeprefix(command), place)
        elif block.language in {"sh", "bash", "shell"}:
            yield Command(block.text, "", place)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


all_documents = pytest.mark.parametrize("document", DOCUMENTS, ids=named)
documents_with_commands = pytest.mark.parametrize(
    "document",
    [
        document
        for document in DOCUMENTS
        if any(command.run_elsewhere is None for command in commands(document))
    ],
    ids=named,
)


def links(document: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each link to a file here: as it is written, the file, the heading in it if any."""
    text = prose(document)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    targets += re.findall(r"^\[[^\]]+\]: (\S+)", text, flags=re.MULTILINE)
    for target in targets:
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield target, (document.parent / path).resolve() if path else document, anchor


@all_documents
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    broken = []
    for target, file, anchor in links(document):
        in_tree = file.is_relative_to(ROOT) and file.exists()
        if not in_tree or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("start", ["README.md", "docs/README.md"])
def test_every_document_is_reached_from_the_index(start: str) -> None:
    found, to_read = set(), [ROOT / start]
    while to_read:
        document = to_read.pop()
        if document in DOCUMENTS and document not in found:
            found.add(document)
            to_read += [file for _, file, _ in links(document)]

    # Only the front page leads to itself.
    assert set(DOCUMENTS) - found <= {ROOT / "README.md"}


@all_documents
def test_every_conf_file_shown_is_valid(document: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    pair = tmp_path / "pair.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pair))
    for block in blocks(document):
        if block.language != "toml":
            continue
        text = re.sub(
            r'(?<=^password_file = )".*?"', f'"{password}"', block.text, flags=re.MULTILINE
        )
        text = re.sub(r'^(tls_\w+) = ".*?"', rf'\1 = "{pair}"', text, flags=re.MULTILINE)
        servers = tomllib.loads(text).get("backends", {}).get("server", [])
        if not any(server.get("role", "primary") == "primary" for server in servers):
            text += EXAMPLE_SERVER
        conf = tmp_path / f"line-{block.line}.conf"
        conf.write_text(text)

        load_config(conf, {})


@documents_with_commands
async def test_every_command_does_what_the_document_shows(document: Path, tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        for command in commands(document):
            if command.run_elsewhere is None:
                output = await stage.run(command)

                wrong = facts(command.shown) - facts(output)
                assert wrong == set(), f"{command.place}: {command.text}\n{output}"


async def test_the_demo_serves_without_any_setup(tmp_path: Path) -> None:
    port, metrics_port = free_ports(2)
    ports = {"PORT": str(port), "OTEL_PROMETHEUS_PORT": str(metrics_port)}
    command = [program("ai-ticket-daemon"), "--demo"]
    log = tmp_path / "demo.log"
    async with running(command, log, **ports), open_client(port) as client:
        await until_ready(client)
        answer = await client.post("/event", json={"content": "Hello", "max_tokens": 8})

    assert answer.status_code == 200
    assert answer.json()["backend"] == "primary"


async def test_the_demo_prints_lines_that_work_as_they_are(tmp_path: Path) -> None:
    port, metrics_port = free_ports(2)
    runtime = Path(tempfile.mkdtemp(prefix="ait"))  # short: it has to take a socket
    extra = {"PORT": str(port), "OTEL_PROMETHEUS_PORT": str(metrics_port)}
    extra["XDG_RUNTIME_DIR"] = str(runtime)
    log = tmp_path / "demo.log"
    try:
        command = [program("ai-ticket-daemon"), "--demo"]
        async with running(command, log, **extra) as process, open_client(port) as client:
            await until_ready(client)
            [curl, ctl] = re.findall(
                r"^  ((?:curl|ai-ticketctl) .*)$", log.read_text(), re.MULTILINE
            )
            folder = Path(shlex.split(ctl)[2]).parent
            assert folder.parent == runtime
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            answer = json.loads(await shell(curl))
            status = await shell(ctl)
            process.terminate()
            with trio.fail_after(GUARD_SECONDS):
                await process.wait()

        assert answer["completion"]
        assert re.search("status +healthy", status)
        left = list(await trio.Path(runtime).iterdir())
        assert left == [], "the directory of the socket is removed"
    finally:
        shutil.rmtree(runtime)


async def shell(command: str) -> str:
    """Run a line as a reader would, with our commands on the path."""
    with trio.fail_after(GUARD_SECONDS):
        done = await trio.run_process(
            ["bash", "-c", command], capture_stdout=True, env=environment()
        )
    return done.stdout.decode()


def test_every_exception_is_needed_and_names_what_runs_it() -> None:
    used = {command.run_elsewhere for document in DOCUMENTS for command in commands(document)}

    assert used - {None} == RUN_ELSEWHERE.keys()
    assert [test for _, test in RUN_ELSEWHERE.values() if not (ROOT / test).is_file()] == []


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 100


def test_every_decision_has_the_four_parts_and_a_line_in_the_index() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    index = (ROOT / "docs" / "adr" / "README.md").read_text()

    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(records) + 1))
    for record in [*records, ROOT / "docs" / "adr" / "template.md"]:
        headings = re.findall(r"^## (.*)$", record.read_text(), flags=re.MULTILINE)
        assert headings == ["Status", "Context", "Decision", "Consequences"], record.name
    for record in records:
        title = record.read_text().splitlines()[0].removeprefix("# ")
        assert f"[{title}]({record.name})" in index


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()

    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert [page for page in pages if f"]({page}" not in index] == []


def test_the_metrics_page_is_up_to_date_and_explains_every_label() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()

    assert page == reference(), "run: python -m ai_ticket_daemon.telemetry.reference"
    explained = page.partition("## Labels")[2]
    labels = {label for family in families() for label in family.labels}
    assert {label for label in labels if f"`{label}`" not in explained} == set()


def test_the_log_page_lists_every_event() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))

    logged = set()
    for file in (ROOT / "ai_ticket_daemon").rglob("*.py"):
        if "testing" in file.parts:
            continue
        tree = ast.parse(file.read_text())
        logged |= {name for node in ast.walk(tree) for name in log_events(node)}

    assert listed == logged


def log_events(node: ast.AST) -> Iterator[str]:
    """Yield the names of the events that ``node`` logs, if it is such a call."""
    match node:
        case ast.Call(
            func=ast.Attribute(
                value=ast.Name(id="log") | ast.Attribute(attr="_log"),
                attr="debug" | "info" | "warning" | "error" | "critical",
            )
            | ast.Attribute(attr="library_logger"),
            args=[name, *_],
        ):
            for part in ast.walk(name):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def facts(text: str) -> set[str]:
    """Return what has to be true of JSON shown in a document: its keys, and some of the values."""
    told = r'"(?:backend|status|error|attempts|done)":(?:"\w+"|\w+)'
    return {*re.findall(r'"\w+":', text), *re.findall(told, text)}


@dataclass(frozen=True)
class Stage:
    """What the documents speak of, on ports of its own."""

    replacements: dict[str, str]
    log: Path

    async def run(self, command: Command) -> str:
        """Run ``command`` as the document has it and return what it printed."""
        text = command.text
        for pattern, replacement in self.replacements.items():
            text = re.sub(pattern, replacement, text)
        with trio.fail_after(GUARD_SECONDS):
            done = await trio.run_process(
                ["bash", "-o", "pipefail", "-c", text],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=ROOT,
                env=environment(),
            )
        output = done.stdout.decode()
        told = f"{command.place}: {text}\n{output}{done.stderr.decode()}\n{self.log.read_text()}"
        assert done.returncode == 0, told
        return output


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Stage]:
    """Run a daemon in front of two simulated servers, for the length of a block."""
    http, metrics, primary, standby = free_ports(4)
    conf, log = folder / "ai-ticket.conf", folder / "daemon.log"
    # Not in `folder`: the path of a Unix socket has to be short.
    control = Path(tempfile.mkdtemp(prefix="ait")) / "control.sock"
    conf.write_text(
        f'http.bind = ["127.0.0.1:{http}"]\n'
        f'metrics.bind = "127.0.0.1:{metrics}"\n'
        'telemetry.traces = "none"\n'
        "backends.probe_timeout_seconds = 10\n"  # This host may be busy; that is no failover.
        "backends.failback_after_seconds = 0.1\n"
        f'control.socket = "{control}"\n'
        "[[backends.server]]\n"
        f'name = "primary"\nurl = "http://127.0.0.1:{primary}"\n'
        "[[backends.server]]\n"
        f'name = "standby"\nurl = "http://127.0.0.1:{standby}"\nrole = "standby"\n'
    )
    daemon = [program("ai-ticket-daemon"), "--config", str(conf)]
    async with (
        simulated_server(primary, folder / "primary.log") as primary_process,
        simulated_server(standby, folder / "standby.log"),
        running(daemon, log),
        open_client(http) as client,
    ):
        await until_ready(client)
        yield Stage(
            {
                r":5000\b": f":{http}",
                r":9464\b": f":{metrics}",
                r":5001\b": f":{primary}",
                r":5002\b": f":{standby}",
                rf"\b{PRIMARY_PID}\b": str(primary_process.pid),
                r"/etc/ai-ticket/ai-ticket\.conf": str(conf),
                r"/opt/ai-ticket/venv/bin/": "",
                r"\bai-ticketctl\b": f"ai-ticketctl --socket {control}",
            },
            log,
        )


@asynccontextmanager
async def simulated_server(port: int, log: Path) -> AsyncIterator[trio.Process]:
    """Run a simulated KoboldCPP; it listens before the block begins, so nothing fails over."""
    command = [sys.executable, "-m", "ai_ticket_daemon.testing.kobold", "--port", str(port)]
    async with running(command, log) as process:
        with trio.fail_after(START_SECONDS):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    break
        yield process


@asynccontextmanager
async def running(command: list[str], log: Path, **extra: str) -> AsyncIterator[trio.Process]:
    """Run ``command`` for the length of a block."""
    async with trio.open_nursery() as nursery:
        with log.open("wb") as output:
            run = partial(
                trio.run_process,
                stdout=output,
                stderr=output,
                check=False,
                env=environment() | extra,
            )
            process = await nursery.start(run, command)
        yield process
        process.terminate()


def open_client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)


async def until_ready(client: httpx.AsyncClient) -> None:
    """Return when both servers are usable and the primary serves.

    On a busy host its first probe may come too late, and the standby serves for a moment.
    """
    with trio.fail_after(START_SECONDS):
        while True:
            try:
                report = (await client.get("/health")).json()
            except httpx.TransportError:
                pass
            else:
                states = {backend["state"] for backend in report["backends"]}
                if report["status"] == "healthy" and states <= {"ready", "busy"}:
                    return
            await trio.sleep(0.05)


def environment() -> dict[str, str]:
    """Return an environment in which the daemon's programs are found and nothing configures it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: os.environ.get(name, "/") for name in ("HOME", "XDG_STATE_HOME")}
    return {"PATH": path, "LC_ALL": "C.UTF-8", **kept}


def program(name: str) -> str:
    found = shutil.which(name, path=environment()["PATH"])
    assert found is not None, f"{name} is not installed; run ops/bootstrap.sh"
    return found
