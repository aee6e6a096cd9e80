"""The scripts in ops/: what they leave behind, and the one sentence each failure ends in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.project import ROOT
from tests.support.system.debian_packages import LIST, packages

pytestmark = pytest.mark.system

NOT_COPIED = (".git", ".venv", ".cache", ".env", "__pycache__", "*_cache", ".hypothesis")
INSTALL_SECONDS = 900
"""A guard against hanging; an installation takes seconds when pip's cache is warm."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would steer the scripts, with these changes."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PORT", "PYTHON", "TMPDIR"}}
    return kept | changes


def unreachable_index(port: int) -> dict[str, str]:
    """An environment in which this loopback port is the only place pip knows."""
    kept = {k: v for k, v in environment().items() if not k.startswith("PIP_")}
    return kept | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }


def closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(
    command: list[str | Path], cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=env if env is not None else environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )


def script(folder: Path, name: str, text: str) -> Path:
    """Write an executable shell script."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, (result.stdout, result.stderr)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("bootstrap.sh: ")
    for word in words:
        assert word in lines[0]


def processes_in(folder: Path) -> list[str]:
    """The command lines of all processes that work in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it ended meanwhile
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean copy of the tree."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return copy


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree in which bootstrap.sh has run."""
    copy = tmp_path_factory.mktemp("prepared") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    result = run(["ops/bootstrap.sh", "--runtime-only", "--skip-health"], copy)
    assert result.returncode == 0, (result.stdout, result.stderr)
    return copy


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH that holds the system's tools, but no Python; tests add stand-ins."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in Path("/usr/bin").iterdir():
        if not tool.name.startswith("python"):
            (folder / tool.name).symlink_to(tool)
    return folder


def test_bootstrap_makes_an_environment_that_can_import_the_package(prepared: Path) -> None:
    code = "import ai_ticket_daemon, trio; print(ai_ticket_daemon.__file__)"
    result = run([prepared / ".venv/bin/python", "-c", code], prepared.parent)
    assert result.stdout.strip() == str(prepared / "ai_ticket_daemon/__init__.py")


def test_bootstrap_writes_the_settings_for_the_owner_only(prepared: Path) -> None:
    env_file = prepared / ".env"
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    text = env_file.read_text()
    for name in ("KOBOLDCPP_API_URL", "KOBOLDCPP_STANDBY_API_URL", "OTEL_SERVICE_NAME", "PORT"):
        assert f"{name}=" in text


def test_a_second_bootstrap_installs_nothing_and_keeps_the_env_file(prepared: Path) -> None:
    env_file = prepared / ".env"
    original = env_file.read_text()
    env_file.write_text("MINE=1\n")
    try:
        result = run(["ops/bootstrap.sh", "--runtime-only", "--skip-health"], prepared)
        assert result.returncode == 0
        assert "is up to date" in result.stdout
        assert "requirements" not in result.stdout
        assert env_file.read_text() == "MINE=1\n"
        steps = re.findall(r".* \d+\.\d s$", result.stdout, re.MULTILINE)
        assert steps == [], "each step that is taken tells its seconds"
    finally:
        env_file.write_text(original)


def test_a_changed_lock_file_is_installed_again(prepared: Path) -> None:
    lock = prepared / "ops/requirements/runtime.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    result = run(["ops/bootstrap.sh", "--runtime-only", "--skip-health"], prepared)
    assert result.returncode == 0, result.stderr
    assert "runtime requirements" in result.stdout
    assert "virtual environment (" not in result.stdout


def test_a_half_made_environment_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/pyvenv.cfg").touch()
    (checkout / ".venv/leftover").touch()
    result = run(["ops/bootstrap.sh"], checkout, unreachable_index(closed_port()))
    assert "making it anew" in result.stdout
    assert not (checkout / ".venv/leftover").exists()
    assert (checkout / ".venv/bin/pip").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    result = run(["ops/bootstrap.sh", "--venv", mine], checkout)
    assert_one_sentence(result, str(mine), "is no virtual environment", "--venv")
    assert (mine / "thesis.txt").exists()


def test_an_old_python_is_named_with_the_version_needed(checkout: Path, tools: Path) -> None:
    script(tools, "python3", '[ "$1" = -V ] && echo Python 3.9.2 && exit 0; exit 1')
    result = run(["ops/bootstrap.sh"], checkout, environment(PATH=str(tools)))
    assert_one_sentence(result, "Python 3.11 or newer is needed", "Python 3.9.2", "PYTHON=")


def test_an_ordinary_user_without_python_is_told_what_to_install(
    checkout: Path, tools: Path
) -> None:
    script(tools, "id", "echo 1000")
    result = run(["ops/bootstrap.sh"], checkout, environment(PATH=str(tools)))
    assert_one_sentence(result, "there is no python3", "apt-get install python3 python3-venv")


def python_without_venv(tools: Path, unlocked_by: Path) -> None:
    """Put a Python into `tools` that gets its venv module when `unlocked_by` appears."""
    script(
        tools,
        "python3",
        f"""case "$2" in *ensurepip*) [ -e '{unlocked_by}' ] || exit 1;; esac
        exec '{sys.executable}' "$@" """,
    )


def test_an_ordinary_user_without_the_venv_module_is_told_what_to_install(
    checkout: Path, tools: Path, tmp_path: Path
) -> None:
    python_without_venv(tools, tmp_path / "never")
    script(tools, "id", "echo 1000")
    result = run(["ops/bootstrap.sh"], checkout, environment(PATH=str(tools)))
    assert_one_sentence(result, "cannot make virtual environments", "apt-get install python3-venv")


def test_root_on_debian_gets_the_venv_module_installed(
    checkout: Path, tools: Path, tmp_path: Path
) -> None:
    python_without_venv(tools, tmp_path / "installed")
    script(tools, "id", "echo 0")
    script(tools, "apt-get", f"case \"$*\" in *python3-venv) touch '{tmp_path}/installed';; esac")
    index = unreachable_index(closed_port())
    result = run(["ops/bootstrap.sh"], checkout, index | {"PATH": str(tools)})
    assert "Debian packages: python3-venv" in result.stdout
    assert (checkout / ".venv/bin/pip").exists()


def test_a_missing_library_of_the_model_server_is_named(prepared: Path, tools: Path) -> None:
    script(tools, "id", "echo 1000")
    cache = run(["/sbin/ldconfig", "-p"], prepared).stdout.splitlines()
    library = next(line.split()[-1] for line in cache if "libgomp.so.1 " in line)
    hidden = f"mount --bind /dev/null '{library}' && exec ops/bootstrap.sh --with-model"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", hidden]
    result = run([*command], prepared, environment(PATH=str(tools)))
    assert_one_sentence(result, "libgomp.so.1", "apt-get install libgomp1")
    assert "language model" not in result.stdout


def test_root_on_debian_gets_all_that_the_tests_need_installed(
    prepared: Path, tools: Path, tmp_path: Path
) -> None:
    """A Debian of nothing but its minimum, as far as the script can see."""
    wanted = {"documents", "manuals", "systemd", "containers", "package"}
    listed = [package for package in packages() if package.need in wanted]
    for package in listed:
        if not package.program.startswith("/"):  # such a file is the host's; it is hidden below
            (tools / package.program).unlink(missing_ok=True)
    script(tools, "id", "echo 0")
    script(tools, "apt-get", f"echo \"$@\" >>'{tmp_path}/asked'")
    essential = next(p.program for p in listed if p.name == "build-essential")
    hidden = f"mount -t tmpfs none {Path(essential).parent} && "
    command = f"{hidden} exec ops/bootstrap.sh --runtime-only --skip-health --with-containers"
    (prepared / "ops/lib/debian-packages").write_text(LIST.read_text())
    result = run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", command],
        prepared, environment(PATH=str(tools)),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    asked = (tmp_path / "asked").read_text().splitlines()[-1].split()
    assert {package.name for package in listed} <= set(asked)


def test_no_network_is_called_that_and_leaves_the_environment_usable(checkout: Path) -> None:
    result = run(["ops/bootstrap.sh"], checkout, unreachable_index(closed_port()))
    assert_one_sentence(result, "could not reach the package index", "network or proxy")
    assert not (checkout / ".venv/.unfinished").exists()


def on_tmpfs(megabytes: int, folder: Path, command: str) -> list[str | Path]:
    """A command that sees a small file system on `folder`, gone when the command ends."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs '{folder}' && exec {command}"
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount]


def test_a_disk_too_small_is_noticed_before_anything_is_installed(
    checkout: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    result = run(on_tmpfs(20, small, f"ops/bootstrap.sh --venv '{small}/venv'"), checkout)
    assert_one_sentence(result, "the disk is full", "MB are needed", str(small), "make room")
    assert "virtual environment" not in result.stdout


def test_a_disk_that_fills_up_meanwhile_is_called_that(
    prepared: Path, tools: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    script(tools, "df", "echo header; echo tmpfs 99999 0 99999 0% /")
    changes = {"PATH": str(tools), "TMPDIR": str(small), "PIP_NO_CACHE_DIR": "1"}
    result = run(on_tmpfs(4, small, "ops/bootstrap.sh"), prepared, environment(**changes))
    assert_one_sentence(result, "the disk is full", "free some space")
    assert not (prepared / ".venv/.unfinished").exists()


def test_a_stopped_bootstrap_leaves_no_process_behind(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_index:
        silent_index.settimeout(60)
        with subprocess.Popen(
            ["ops/bootstrap.sh", "--runtime-only", "--skip-health"],
            cwd=checkout,
            env=unreachable_index(silent_index.getsockname()[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as bootstrap:
            connection, _ = silent_index.accept()  # pip is at work now, waiting for an answer
            with connection:
                bootstrap.send_signal(signal.SIGTERM)
                _, errors = bootstrap.communicate(timeout=60)
    assert bootstrap.returncode == 128 + signal.SIGTERM
    assert "interrupted" in errors
    assert processes_in(checkout) == []


@pytest.mark.parametrize(
    ("status", "body", "code", "sentence"),
    [
        (200, b'{"status": "healthy"}', 0, "health: healthy on port"),
        (200, b'{"status": "degraded", "reasons": ["on the standby"]}', 0, "(on the standby)"),
        (503, b'{"status": "unhealthy", "reasons": ["no backend"]}', 1, "(no backend)"),
        (404, b"<h1>a router</h1>", 1, "not as ai-ticket-daemon does"),
    ],
)
async def test_bootstrap_tells_how_the_running_service_is(
    prepared: Path, status: int, body: bytes, code: int, sentence: str
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)
        await stream.aclose()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            listeners: list[trio.SocketListener] = await nursery.start(
                partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
            )
            port = listeners[0].socket.getsockname()[1]
            env_file = trio.Path(prepared / ".env")
            original = await env_file.read_text()
            await env_file.write_text(original.replace("PORT=5000", f"PORT={port}"))
            result = await trio.run_process(
                ["ops/bootstrap.sh", "--runtime-only"],
                cwd=prepared,
                env=environment(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            await env_file.write_text(original)
            nursery.cancel_scope.cancel()
    said = result.stdout if code == 0 else result.stderr
    assert result.returncode == code
    assert sentence in said.decode().splitlines()[-1]
    assert str(port) in said.decode().splitlines()[-1]


def test_a_service_that_does_not_run_is_no_failure(prepared: Path) -> None:
    port = str(closed_port())
    result = run(["ops/bootstrap.sh", "--runtime-only"], prepared, environment(PORT=port))
    assert result.returncode == 0
    assert f"nothing runs on port {port} yet" in result.stdout


@pytest.mark.parametrize("name", ["bootstrap.sh", "quickstart.sh", "test.sh", "loadtest.sh"])
def test_every_script_explains_itself_without_doing_anything(checkout: Path, name: str) -> None:
    result = run([f"ops/{name}", "--help"], checkout)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: ops/{name} ")
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["ops/bootstrap.sh", "--fast"],
        ["ops/bootstrap.sh", "--venv"],
        ["ops/quickstart.sh", "--port", "70000"],
        ["ops/quickstart.sh", "--port"],
        ["ops/quickstart.sh", "now"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(checkout: Path, command: list[str]) -> None:
    result = run([*command], checkout)
    assert result.returncode == 2
    assert "see --help" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("entry", [["bash", ".ci/run"], ["ops/test.sh", "--fast", "-k", "word"]])
def test_all_checks_run_and_are_summed_up_even_when_one_fails(
    checkout: Path, entry: list[str]
) -> None:
    programs = checkout / ".venv/bin"
    programs.mkdir(parents=True)
    script(checkout / "ops", "bootstrap.sh", "exit 0")
    for name in ("ruff", "mypy", "lint-imports", "shellcheck", "pytest"):
        script(programs, name, f'echo "{name} got $*"')
    script(programs, "mypy", "exit 1")

    result = run([*entry], checkout)

    assert result.returncode == 1
    checks = ["formatter", "linter", "types", "imports", "shell", "tests"]
    summary = [line.split()[:2] for line in result.stdout.splitlines()[-6:]]
    assert summary == [["FAILED" if name == "types" else "passed", name] for name in checks]
    tests, word = (" and not system", " -k word") if "--fast" in entry else ("", "")
    how = "--numprocesses 6 --no-loadscope-reorder --durations 20"
    assert f"pytest got -m not benchmark{tests} {how}{word}\n" in result.stdout


def test_nothing_is_tested_when_the_preparation_fails(checkout: Path) -> None:
    script(checkout / "ops", "bootstrap.sh", "exit 1")
    result = run(["ops/test.sh"], checkout)
    assert result.returncode == 1
    assert "==" not in result.stdout
