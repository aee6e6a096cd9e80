"""The runbook, executed: each section's commands, with its trouble there where one is induced."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING

import pytest
from control_house import open_house

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from control_house import House

    from ai_ticket_daemon.config.tree import Config

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
ALERTS = ROOT / "ops" / "prometheus" / "alerts.rules.yml"


def sections() -> dict[str, list[str]]:
    """Return the commands of ``ai-ticketctl`` under each heading, in their order."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in RUNBOOK.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
            found[heading] = []
        elif line.startswith("$ ai-ticketctl "):
            found[heading].append(line.removeprefix("$ ai-ticketctl "))
    return {heading: commands for heading, commands in found.items() if commands}


async def nothing(house: House) -> None:
    """The commands are for quiet times."""


async def primary_dead(house: House) -> None:
    house.primary.faults.die(reset=True)
    await house.until(lambda r: r["serving"]["role"] == "standby")


async def all_dead(house: House) -> None:
    house.primary.faults.die(reset=True)
    house.standby.faults.die(reset=True)
    await house.until(lambda r: r["status"] == "unhealthy")


async def store_gone(house: House) -> None:
    store_file(house).rename(house.folder / "moved")
    await house.until(lambda r: r["store"]["fault"] is not None)


def store_file(house: House) -> Path:
    return house.folder / "store" / "events.db"


async def standby_pinned(house: House) -> None:
    await house.ctl("failover", "standby")


async def held_up(house: House) -> None:
    await house.ctl("pause")
    await house.ctl("submit", "Hello", "--no-wait", "--max-tokens", "4")
    await house.until(lambda r: r["queue"]["queued"] == 1)


DRILLS: dict[str, Callable[[House], Awaitable[None]]] = {
    "First look": primary_dead,
    "AiTicketServerFailuresRising": primary_dead,
    "AiTicketServerFailuresMany": primary_dead,
    "AiTicketBackendErrors": primary_dead,
    "AiTicketBatchesSlow": held_up,
    "AiTicketNoBackend": all_dead,
    "AiTicketBackendDown": primary_dead,
    "AiTicketOnStandby": standby_pinned,
    "AiTicketFlapping": primary_dead,
    "AiTicketQueueOld": held_up,
    "AiTicketStoreFault": store_gone,
    "AiTicketEventsLost": nothing,
    "AiTicketReloadRefused": nothing,
    "AiTicketActorRestarts": nothing,
    "AiTicketWatchdogNear": nothing,
    "AiTicketLogLinesDropped": nothing,
    "Scaling": nothing,
    "Maintenance": nothing,
}
"""What is wrong while the commands of a section are run."""


def test_every_command_of_the_runbook_is_drilled() -> None:
    assert sections().keys() == DRILLS.keys()


def test_every_alert_leads_to_a_section() -> None:
    anchors = re.findall(r"runbook_url: docs/runbook.md#(\w+)", ALERTS.read_text())
    headings = {line.lstrip("# ").lower() for line in RUNBOOK.read_text().splitlines()}
    assert anchors
    assert [anchor for anchor in anchors if anchor not in headings] == []


def quick_failback(config: Config) -> Config:
    backends = replace(config.backends, failback_after_seconds=0.5)
    return replace(config, backends=backends)


@pytest.mark.parametrize("section", sections())
async def test_a_section_works_while_its_trouble_is_there(
    section: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with open_house(capsys, change=quick_failback) as house:
        await DRILLS[section](house)
        for number, command in enumerate(sections()[section]):
            text = re.sub(r'"\$\(mktemp -d\)/([^"]+)"', rf"{tmp_path}/{number}-\1", command)
            assert await house.ctl(*shlex.split(text))
        if section == "AiTicketQueueOld":
            await house.until(lambda r: r["queue"]["succeeded"] == 1)
        if DRILLS[section] is store_gone:
            (house.folder / "moved").rename(store_file(house))
            await house.until(lambda r: r["store"]["fault"] is None)
        report = await house.json("status")
    assert (report["paused"], report["draining"]) == (section == "AiTicketBatchesSlow", False)
    assert report["store"]["fault"] is None
    if DRILLS[section] is primary_dead:
        assert report["serving"]["role"] == "standby"
    if DRILLS[section] is standby_pinned:
        assert (report["serving"]["role"], report["serving"]["pinned"]) == ("primary", None)


def test_a_record_of_a_decision_is_started_from_the_template(tmp_path: Path) -> None:
    folder = copytree(ROOT / "docs" / "adr", tmp_path / "adr")
    command = [str(ROOT / "ops" / "new-adr.sh"), "Two primaries, one disk!", str(folder)]
    made = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    number = len(list(folder.glob("[0-9]*.md")))
    assert made.name == f"{number:04d}-two-primaries-one-disk.md"
    assert made.read_text().startswith(f"# {number}. Two primaries, one disk!\n\n## Status\n")
    assert f"]({made.name})" in (folder / "README.md").read_text()
