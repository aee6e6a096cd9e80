"""What the documents say of signals, exit codes and words is what the code has."""

from __future__ import annotations

import io
import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon import __main__
from ai_ticket_daemon.app import Daemon
from ai_ticket_daemon.backends.failure import RetryRule
from ai_ticket_daemon.backends.kobold.abort import AbortReason
from ai_ticket_daemon.config.backend_server import BackendKind, BackendRole, Dialect, ServerConfig
from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.config.values.tokens import Scope
from ai_ticket_daemon.ctl import main as ctl
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.pool.backend import GuestReason
from ai_ticket_daemon.pool.failover import SwitchReason
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.status.snapshot import HealthStatus
from ai_ticket_daemon.store.sqlite.schema import MIGRATIONS
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.telemetry.reference import families
from ai_ticket_daemon.telemetry.traces.span_sender import DropReason
from ai_ticket_daemon.testing.daemon import config_for
from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = ROOT / "docs"
USAGE = 2
"""What argparse ends with."""

LOOK_UP: dict[str, tuple[str, Iterable[str]]] = {
    # what they are: (the page where a reader looks them up, the words)
    "error codes": ("http-api.md", ErrorCode),
    "states of an event": ("event-life.md", EventState),
    "states of a server": ("backend-health.md", HealthState),
    "states of the daemon": ("http-api.md", HealthStatus),
    "retry rules": ("event-life.md", RetryRule),
    "scopes": ("http-api.md", Scope),
    "dialects": ("koboldcpp.md", Dialect),
    "roles": ("metrics.md", BackendRole),
    "kinds": ("glossary.md", BackendKind),
    "reasons to abort": ("metrics.md", AbortReason),
    "reasons for a guest": ("metrics.md", GuestReason),
    "reasons to switch": ("metrics.md", set(SwitchReason) - {SwitchReason.START}),
    "reasons to drop a span": ("metrics.md", DropReason),
    "labels": ("metrics.md", {label for family in families() for label in family.labels}),
}


def page(name: str) -> str:
    return (DOCS / name).read_text()


def first_column(text: str, heading: str) -> set[str]:
    """Return what stands in the first column of the table with that heading, without its marks."""
    table = text.partition(f"| {heading} |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return {word.strip(" `*") for cell in cells for word in cell.split(",")}


def section(text: str, heading: str) -> str:
    """Return what stands under a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def codes(module: object) -> set[str]:
    return {str(value) for name, value in vars(module).items() if name.startswith("EXIT_")}


def actors() -> set[str]:
    """Return the names under which parts are started."""
    begin = r'start\(\s*(?:supervisor,\s*\w+,\s*)?"(\w+)"'
    sources = (path.read_text() for path in (ROOT / "ai_ticket_daemon").rglob("*.py"))
    return {name for source in sources for name in re.findall(begin, source)}


async def test_the_signals_page_has_every_signal_the_daemon_takes() -> None:
    config = config_for(ServerConfig(name="primary", url="http://127.0.0.1:1"))
    logs = Logs(LogLevel.INFO, LogFormat.JSON, stream=io.StringIO())
    daemon = Daemon(config, load=lambda: config, logs=logs)

    taken = {number.name.removeprefix("SIG") for number in daemon._actions()}

    assert first_column(page("signals.md"), "Signal") == taken


@pytest.mark.parametrize(
    ("command", "module"), [("ai-ticket-daemon", __main__), ("ai-ticketctl", ctl)]
)
def test_the_signals_page_has_every_exit_code(command: str, module: object) -> None:
    told = section(page("signals.md"), f"Exit codes of `{command}`")

    assert first_column(told, "Exit code") == codes(module) | {str(USAGE)}


@pytest.mark.parametrize(("file", "words"), LOOK_UP.values(), ids=LOOK_UP)
def test_every_word_can_be_looked_up(file: str, words: Iterable[str]) -> None:
    text = page(file)

    assert [str(word) for word in words if f"`{word}`" not in text] == []


def test_every_part_that_is_restarted_is_listed_with_what_it_costs() -> None:
    assert first_column(page("error-policy.md"), "Actor") == actors()
    assert len(actors()) > 10


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\*.* \|", page("glossary.md"), flags=re.MULTILINE)

    assert rows == sorted(set(rows), key=str.lower)


def test_the_upgrade_page_lists_every_schema() -> None:
    table = page("upgrading.md").partition("| Schema |")[2].partition("\n\n")[0]
    told = [row.split("|") for row in table.splitlines()[2:]]

    assert [int(row[1]) for row in told] == list(range(1, len(MIGRATIONS) + 1))
    for row, step in zip(told, MIGRATIONS, strict=True):
        assert f"schema {step.usable_since} " in row[3]


def test_the_layers_of_the_architecture_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (DOCS / "architecture.md").read_text()
    [shown] = re.findall(r"## Who may import whom.*?```text\n(.*?)\n```", page, re.DOTALL)
    assert shown.splitlines() == layers


def test_the_architecture_has_a_row_for_each_package() -> None:
    page = (DOCS / "architecture.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE))
    package = ROOT / "ai_ticket_daemon"
    assert rows == {path.parent.name for path in package.glob("*/__init__.py")}


def test_unit_tests_lie_where_the_package_they_test_lies() -> None:
    unit, package = ROOT / "tests" / "unit", ROOT / "ai_ticket_daemon"
    folders = {path.parent.relative_to(unit) for path in unit.rglob("test_*.py")}
    packages = {path.parent.relative_to(package) for path in package.rglob("__init__.py")}
    assert folders <= packages
