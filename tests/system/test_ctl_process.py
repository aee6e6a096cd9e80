"""``ai-ticketctl`` as it is run: on a terminal or not, at a daemon that hangs, died or refuses."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.system.test_process import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

pytestmark = pytest.mark.system

CTL = str(Path(sys.executable).with_name("ai-ticketctl"))
QUICK = KoboldSettings().instant()
NOBODY = 65534
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]")


@pytest.fixture
def socket() -> Iterator[Path]:
    """Where the control socket is: not in tmp_path, since the path of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="ait"))
    yield folder / "c.sock"
    shutil.rmtree(folder)


def at(socket: Path) -> str:
    return f'control.socket = "{socket}"'


async def ctl(
    socket: Path, *words: str, code: int = 0, stdin: bytes = b"", **env: str
) -> tuple[str, str]:
    """Run the command without a terminal; return what it printed, and what it said."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [CTL, "--socket", str(socket), *words],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **env},
        )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f"{words}: {done.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


@dataclass
class Terminal:
    """A terminal with a program on it."""

    process: trio.Process
    master: int
    slave: int
    shown: str = ""

    async def until(self, text: str) -> None:
        """Read until ``text`` is shown, and forget what came before."""
        with trio.fail_after(60):
            while text not in self.shown:
                await self._read()
        self.shown = self.shown.partition(text)[2]

    async def _read(self) -> None:
        await trio.lowlevel.wait_readable(self.master)
        self.shown += os.read(self.master, 65536).decode()

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    async def end(self) -> int:
        """Read until the program has ended; return its exit code."""
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:

                async def drain() -> None:
                    while True:
                        await self._read()

                nursery.start_soon(drain)
                code = await self.process.wait()
                nursery.cancel_scope.cancel()
        with suppress(BlockingIOError):
            os.set_blocking(self.master, False)
            self.shown += os.read(self.master, 65536).decode()
        return code


@asynccontextmanager
async def on_a_terminal(
    socket: Path, *words: str, columns: int = 100, shell: str = "", **env: str
) -> AsyncIterator[Terminal]:
    """Run the command, or ``shell``, on a terminal for the length of a block."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
    # With a session of its own, so that Ctrl-C on the terminal reaches it as it does in real life.
    command = ["bash", "-c", shell] if shell else [CTL, "--socket", str(socket), *words]
    process = await trio.lowlevel.open_process(
        ["setsid", "--ctty", *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**kept, "TERM": "xterm-256color", **env},
    )
    try:
        yield Terminal(process, master, slave)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(master)
        os.close(slave)


async def test_a_daemon_that_hangs_is_told_within_the_time_for_it(
    tmp_path: Path, socket: Path
) -> None:
    async with running(tmp_path, at(socket)) as daemon:
        os.kill(daemon.process.pid, signal.SIGSTOP)
        try:
            began = trio.current_time()
            for words in (["status"], ["failover", "primary"], ["submit", "x", "--no-wait"]):
                _, said = await ctl(socket, "--timeout", "0.5", *words, code=69)
                assert "does not answer in time: it hangs or is very busy" in said
                assert "kill -USR1" in said
            assert trio.current_time() - began < 15
        finally:
            os.kill(daemon.process.pid, signal.SIGCONT)
        await ctl(socket, "status")


NOTHING: Mapping[str, str] = MappingProxyType({})
UNBUFFERED = [pytest.param({}, id="buffered"), pytest.param({"PYTHONUNBUFFERED": "1"}, id="not")]


async def redirected(
    socket: Path, words: str, redirect: str, env: Mapping[str, str] = NOTHING, stdin: bytes = b""
) -> tuple[int, str]:
    """Run the command as a shell with ``redirect`` does; return its exit code and what it said."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with trio.fail_after(60):
        done = await trio.run_process(
            ["/bin/sh", "-c", f"exec {CTL} --socket {socket} {words} {redirect}"],
            stdin=stdin,
            capture_stderr=True,
            check=False,
            env={**environ, **env},
        )
    said = done.stderr.decode()
    assert "Traceback" not in said
    return done.returncode, said


@pytest.mark.parametrize("env", UNBUFFERED)
@pytest.mark.parametrize("option", ["", "--json", "--no-wait", "--follow"])
async def test_a_completion_that_cannot_be_printed_can_be_waited_for(
    tmp_path: Path, socket: Path, option: str, env: dict[str, str]
) -> None:
    async with (
        open_simulated_kobold(QUICK) as kobold,
        running(tmp_path, at(socket), backend=kobold.url),
    ):
        code, said = await redirected(socket, f"submit x {option}", ">/dev/full", env)
        assert code == 1, said
        assert "standard output cannot be written: No space left on device" in said
        (event_id,) = re.findall(r"ai-ticketctl wait (\S+)`", said)
        completion, _ = await ctl(socket, "wait", event_id)
        assert completion.strip()
        code, said = await redirected(socket, f"wait {event_id}", ">/dev/full", env)
        assert code == 1, said
        assert event_id in said


@pytest.mark.parametrize("words", ["submit x", "submit x --follow", "submit x --no-wait", "submit"])
async def test_nothing_is_submitted_whose_completion_could_not_be_printed(
    tmp_path: Path, socket: Path, words: str
) -> None:
    async with (
        open_simulated_kobold(QUICK) as kobold,
        running(tmp_path, at(socket), backend=kobold.url),
    ):
        line = b'{"content": "a"}\n'
        code, said = await redirected(socket, words, ">&-", stdin=line)
        assert code == 1, said
        assert "standard output is closed, so nothing was submitted" in said
        listed, _ = await ctl(socket, "events", "list", "--json")
        assert json.loads(listed) == []


@pytest.mark.parametrize("env", UNBUFFERED)
async def test_lines_whose_answers_cannot_be_written_are_told_by_their_number(
    tmp_path: Path, socket: Path, env: dict[str, str]
) -> None:
    async with (
        open_simulated_kobold(QUICK) as kobold,
        running(tmp_path, at(socket), backend=kobold.url),
    ):
        lines = b'{"content": "a"}\n' * 3
        code, said = await redirected(socket, "submit", ">/dev/full", env, stdin=lines)
    assert code == 1, said
    assert "No space left on device; no answer from that to line 1 on was written" in said


PRINTING = (
    "status", "status --json", "backends", "events list", "reload --plan", "check-config", "audit",
    "top --json", "pause", "unpause",
)  # fmt: skip


async def test_no_command_ends_well_whose_answer_was_not_written(
    tmp_path: Path, socket: Path
) -> None:
    async with running(tmp_path, at(socket)):
        for number, words in enumerate(PRINTING):
            for redirect in (">&-", ">/dev/full"):
                env = {"PYTHONUNBUFFERED": "1"} if number % 2 else NOTHING
                code, said = await redirected(socket, words, redirect, env)
                assert code == 1, (words, redirect, said)
                told = said.splitlines()[-1]
                assert told.startswith("ai-ticketctl: standard output cannot be written: "), words


async def test_a_daemon_that_died_is_told_from_one_that_is_not_there(
    tmp_path: Path, socket: Path
) -> None:
    _, said = await ctl(socket, "status", code=69)
    assert "the daemon is not running here" in said
    async with running(tmp_path, at(socket)) as daemon:
        daemon.process.kill()
        await daemon.process.wait()
        _, said = await ctl(socket, "status", code=69)
    assert "the daemon has died; systemctl status ai-ticket" in said


async def test_a_user_without_the_right_to_it_is_told_how_to_get_it(
    tmp_path: Path, socket: Path
) -> None:
    program = (
        "import os, sys\n"
        "from ai_ticket_daemon.ctl import commands, main, session\n"
        f"if os.getuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    async with running(tmp_path, at(socket)):
        os.chmod(socket.parent, 0o755)  # noqa: PTH101 - in an async function
        if os.getuid() != 0:
            os.chmod(socket, 0)  # noqa: PTH101
        command = [sys.executable, "-c", program, "--socket", str(socket), "status"]
        done = await trio.run_process(command, capture_stderr=True, check=False)
    assert done.returncode == 69
    assert "may not be opened by this user: use sudo, or join the group" in done.stderr.decode()


async def test_a_refused_reload_says_why_and_changes_nothing(tmp_path: Path, socket: Path) -> None:
    async with running(tmp_path, at(socket), 'log.level = "info"') as daemon:
        good = daemon.conf.read_text()
        daemon.conf.write_text(good.replace('"info"', '"loud"').replace("url = ", "ulr = "))
        for words in (["reload"], ["reload", "--plan"], ["check-config"]):
            answer = json.loads((await ctl(socket, *words, "--json", code=1))[0])
            assert answer["valid"] is False
            assert any("log.level" in problem for problem in answer["problems"])
            assert len(answer["problems"]) >= 2
        shown, _ = await ctl(socket, "status")
        assert re.search(r"reload +refused: ", shown)
        assert "info" in json.loads((await ctl(socket, "status", "--json"))[0])["log_level"]

        daemon.conf.write_text(good.replace('"info"', '"debug"'))
        planned = json.loads((await ctl(socket, "reload", "--plan", "--json"))[0])
        assert planned["live"] == ['log.level: "info" -> "debug"']
        assert json.loads((await ctl(socket, "reload", "--json"))[0])["applied"] is True
        report = json.loads((await ctl(socket, "status", "--json"))[0])
    assert (report["log_level"], report["reload"]) == ("debug", {"refused": []})


async def test_top_goes_on_while_the_daemon_is_away_and_ends_with_q(
    tmp_path: Path, socket: Path
) -> None:
    async with (
        open_simulated_kobold(QUICK) as simulated,
        on_a_terminal(socket, "top", "--interval", "0.1") as terminal,
    ):
        before = termios.tcgetattr(terminal.slave)
        await terminal.until("the daemon is not running here")
        async with running(tmp_path, at(socket), backend=simulated.url) as daemon:
            await terminal.until("healthy")
            await terminal.until("primary")
            await terminal.until("primary")
            daemon.process.kill()
            await daemon.process.wait()
            await terminal.until("the daemon has died")
            await terminal.until("primary")  # what was seen last stays on the screen
        async with running(tmp_path, at(socket), backend=simulated.url) as daemon:
            await terminal.until(f"pid {daemon.process.pid}")
            terminal.type(b"xq")
            assert await terminal.end() == 0
        assert terminal.shown.rpartition("\x1b[?1049l")[1], "the screen is given back"
        assert termios.tcgetattr(terminal.slave) == before


async def test_top_ends_with_ctrl_c(tmp_path: Path, socket: Path) -> None:
    async with (
        running(tmp_path, at(socket)),
        on_a_terminal(socket, "top", "--interval", "30") as terminal,
    ):
        await terminal.until("primary")
        terminal.type(b"\x03")
        assert await terminal.end() == 0


async def test_without_a_screen_to_paint_on_top_says_what_to_do(
    tmp_path: Path, socket: Path
) -> None:
    _, said = await ctl(socket, "top", code=2)
    assert "top needs a terminal" in said
    async with on_a_terminal(socket, "top", TERM="dumb") as terminal:
        assert await terminal.end() == 2
        assert "top needs a terminal" in terminal.shown


async def test_colours_are_for_terminals_that_want_them(tmp_path: Path, socket: Path) -> None:
    async with (
        open_simulated_kobold(QUICK) as simulated,
        running(tmp_path, at(socket), backend=simulated.url),
    ):
        coloured = {}
        wishes: dict[str, dict[str, str]] = {"": {}, "no": {"NO_COLOR": "1"}}
        for name, env in (wishes | {"dumb": {"TERM": "dumb"}}).items():
            async with on_a_terminal(socket, "status", columns=100, **env) as terminal:
                assert await terminal.end() == 0
                assert "healthy" in terminal.shown
                coloured[name] = bool(COLOUR.search(terminal.shown))
        piped, _ = await ctl(socket, "status")
    assert coloured == {"": True, "no": False, "dumb": False}
    assert "\x1b" not in piped


async def test_a_narrow_terminal_shows_all_of_it_in_more_lines(
    tmp_path: Path, socket: Path
) -> None:
    async with (
        running(tmp_path, at(socket)),
        on_a_terminal(socket, "status", columns=40, NO_COLOR="1") as terminal,
    ):
        assert await terminal.end() == 0
        lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown).splitlines()
    assert max(map(len, lines)) <= 40
    assert "unhealthy" in "".join(lines)


def completed(*words: str) -> set[str]:
    """Return what bash offers behind these words."""
    script = subprocess.run(
        [CTL, "--print-completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    typed = " ".join(f"'{word}'" for word in ("ai-ticketctl", *words))
    script += (
        f"\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}\n"
        "function_of=$(complete -p ai-ticketctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        '$function_of; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_actions_options_and_files(tmp_path: Path) -> None:
    assert completed("fail") == {"failover", "failback"}
    assert completed("events", "re") == {"retry"}
    assert completed("log-level", "") == {"debug", "info", "warning", "error"}
    assert "--older-than" in completed("events", "list", "--")
    (tmp_path / "copy.db").touch()
    assert completed("backup", "--output", f"{tmp_path}/co") == {f"{tmp_path}/copy.db"}


async def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path, socket: Path) -> None:
    async with running(tmp_path, at(socket)):
        text = f"set -o pipefail; {CTL} --socket {socket} status | head -1"
        done = await trio.run_process(["bash", "-c", text], capture_stdout=True, check=False)
    assert done.returncode == 0
    assert done.stdout.decode().startswith("status")


async def test_a_batch_shows_its_rate_and_of_a_file_how_long_it_takes(
    tmp_path: Path, socket: Path
) -> None:
    batch = tmp_path / "batch.ndjson"
    batch.write_text('{"content": "x", "max_tokens": 8}\n' * 12)
    slow = replace(KoboldSettings(), tokens_per_second=100, prompt_tokens_per_second=10_000)
    async with (
        open_simulated_kobold(slow) as simulated,
        running(tmp_path, at(socket), backend=simulated.url),
    ):
        for name, text in (
            ("file", f"{CTL} --socket {socket} submit --file {batch} > {tmp_path}/file.out"),
            ("pipe", f"cat {batch} | {CTL} --socket {socket} submit > {tmp_path}/pipe.out"),
        ):
            async with on_a_terminal(socket, shell=text, NO_COLOR="1") as terminal:
                assert await terminal.end() == 0
            shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.shown)
            assert re.search(r"12 events, \d+\.\d\d/s", shown)
            assert bool(re.search(r"left 0:00:0\d", shown)) is (name == "file")
            answers = (tmp_path / f"{name}.out").read_text().splitlines()
            assert [json.loads(answer)["status"] for answer in answers] == [200] * 12
        out, _ = await ctl(socket, "submit", stdin=batch.read_bytes())
    assert [json.loads(line)["status"] for line in out.splitlines()] == [200] * 12
