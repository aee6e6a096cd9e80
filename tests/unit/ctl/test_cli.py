from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.ctl import main as ctl
from ai_ticket_daemon.ctl import session
from ai_ticket_daemon.ctl.cli import parser
from ai_ticket_daemon.ctl.command_tree import each_command
from ai_ticket_daemon.ctl.values import clients, duration, positive
from tests.support.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = dict(each_command(parser()))
every_command = pytest.mark.parametrize("name", COMMANDS)


@every_command
def test_a_command_is_done_by_something(name: str) -> None:
    assert callable(COMMANDS[name].get_default("run"))


def test_what_is_asked_most_starts_without_what_only_other_commands_need() -> None:
    program = (
        "import sys\n"
        "from ai_ticket_daemon.ctl import main\n"
        "main.parser().parse_args(['status', '--json'])\n"
        "print(*{'apsw', 'httpx', 'msgspec', 'rich', 'trio'} & sys.modules.keys())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


@every_command
def test_a_command_has_examples_and_they_can_be_parsed(name: str) -> None:
    examples = re.findall(r"^  ai-ticketctl (.+)$", COMMANDS[name].format_help(), re.MULTILINE)
    assert examples
    for example in examples:
        text = re.sub(r" [|<>].*?(?= --|$)", "", example)
        options = parser().parse_args(shlex.split(text))
        assert options.run == COMMANDS[name].get_default("run")
        assert text.startswith(name)


@every_command
def test_a_command_is_on_its_page(name: str) -> None:
    page = (ROOT / "docs" / "ctl.md").read_text()
    assert re.search(rf"`[^`]*\b{name.split(maxsplit=1)[0]}\b", page)


def test_common_options_stand_before_the_command_or_behind_it() -> None:
    before = parser().parse_args(["--json", "--timeout", "2", "--socket", "/s", "status"])
    behind = parser().parse_args(["status", "--json", "--timeout", "2", "--socket", "/s"])
    assert before == behind
    assert parser().parse_args(["--timeout", "2", "events", "list", "--timeout", "3"]).timeout == 3
    assert parser().parse_args(["status"]).json is False


@pytest.mark.parametrize(
    ("words", "named", "path"),
    [
        ([], False, "/run/ai-ticket/control.sock"),
        (["--instance", "2"], True, "/run/ai-ticket-2/control.sock"),
        (["--socket", "/s"], True, "/s"),
        (["--socket", "/s", "--instance", "2"], True, "/s"),
    ],
)
def test_the_daemon_meant_is_the_one_named(words: list[str], named: bool, path: str) -> None:
    asked = session.Session(parser().parse_args([*words, "status"]))
    assert (asked.named, str(asked.client.path)) == (named, path)


def test_the_environment_names_a_daemon_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(session.SOCKET_VARIABLE, "/e")
    asked = session.Session(parser().parse_args(["status"]))
    assert (asked.named, str(asked.client.path)) == (True, "/e")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("0.5d", 43_200)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("read", "text"),
    [(duration, "soon"), (duration, ""), (duration, "h"), (positive, "0"), (positive, "-1"),
     (positive, "inf"), (positive, "nan"), (positive, "x"), (clients, "0"), (clients, "1001"),
     (clients, "²")],
)  # fmt: skip
def test_what_is_no_such_number_is_refused(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(argparse.ArgumentTypeError):
        read(text)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["why"],
        ["events"],
        ["failover"],
        ["log-level", "loud"],
        ["capture", "many"],
        ["events", "list", "--older-than", "soon"],
        ["loadtest", "--rate", "0"],
        ["loadtest", "--rate", "1", "--clients", "1"],
        ["bundle"],
        ["drill", "earthquake"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = ctl.main(words)
    assert code == session.EXIT_USAGE
    assert "error: " in capsys.readouterr().err


def test_the_exit_codes_are_those_of_their_page() -> None:
    page = (ROOT / "docs" / "signals.md").read_text().partition("## Exit codes of `ai-ticketctl`")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page[2], re.MULTILINE)}
    codes = {value for name, value in vars(session).items() if name.startswith("EXIT_")}
    assert listed == codes
    told = parser().format_help().partition("exit codes:")[2]
    assert {int(code) for code in re.findall(r"\b(\d+) ", told)} == codes


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["stauts"], "did you mean status?"),
        (["events", "lsit"], "did you mean list?"),
        (["log-level", "loud"], "there are debug, info, warning, error"),
        (["events", "list", "--state", "faild"], "did you mean failed?"),
        (["events", "list", "--state", "foo"], "there are queued, running, succeeded"),
        (["capture", "-1"], "'-1' is no number from 0 to 10000"),
        (["events", "list", "--limit", "0"], "'0' is no number from 1"),
        (["submit", "x", "--priority", "11"], "'11' is no number from 0 to 9"),
    ],
)
def test_wrong_usage_says_what_would_be_right(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    assert ended.value.code == session.EXIT_USAGE
    assert hint in capsys.readouterr().err


def test_a_file_that_cannot_be_used_is_named_with_the_reason_and_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.ndjson"
    assert ctl.main(["submit", "--file", str(missing)]) == session.EXIT_REFUSED
    told = capsys.readouterr().err
    assert told.startswith(f"ai-ticketctl: {missing}: No such file or directory; is the path right")
    assert "Errno" not in told


def test_times_of_an_answer_are_told_to_programs_as_iso_8601() -> None:
    answer = {"ended_at": 0.5, "due_at": 0.0, "lines": [{"at": 1764075600.25}], "attempts": 3}
    assert session.with_times(answer) == {
        "ended_at": "1970-01-01T00:00:00.500Z",
        "due_at": None,
        "lines": [{"at": "2025-11-25T13:00:00.250Z"}],
        "attempts": 3,
    }
