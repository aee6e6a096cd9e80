"""The runbook as a text: nothing in it is not rehearsed, nothing that is looked for is missing."""

from __future__ import annotations

import re

from tests.support.drills.runbook import NEEDS_A_HOST, RUNBOOK, chapters
from tests.support.project import ROOT

DRILLS = sorted((ROOT / "tests" / "drills").glob("test_*.py"))
CODE = re.MULTILINE | re.DOTALL
ALERTS = ROOT / "ops" / "prometheus" / "alerts.rules.yml"


def rehearsed(how: str) -> set[str]:
    """Return the chapters that the drills open in this way; opening one means following it all."""
    text = "".join(drill.read_text() for drill in DRILLS)
    return set(re.findall(rf'\b{how}\(\s*(?:host, )?"([^"]+)"', text))


def alerts() -> list[str]:
    return re.findall(r"^ *- alert: (\w+)$", ALERTS.read_text(), flags=re.MULTILINE)


def section(heading: str) -> str:
    """Return what stands under a heading, up to the next one."""
    found = re.search(
        rf"^#+ {heading}\n(.*?)(?=^#|\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    return found[1]


def test_every_command_of_the_runbook_is_run_by_a_drill() -> None:
    needing_a_host = {
        heading
        for heading, commands in chapters().items()
        if any(command.startswith(NEEDS_A_HOST) for command in commands)
    }
    assert rehearsed("rehearse") | rehearsed("on_host") == chapters().keys()
    assert needing_a_host <= rehearsed("on_host")


def test_commands_stand_nowhere_else_than_under_a_heading_and_in_console_blocks() -> None:
    commands = re.findall(r"^\$ (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    assert commands == [command for found in chapters().values() for command in found]
    assert set(re.findall(r"^```(\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)) == {"console"}
    prose = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", RUNBOOK.read_text(), flags=CODE))
    assert [code for code in prose if re.match(r"(\w*ctl|ops/\S+|curl|kill) \w", code)] == []


def test_every_alert_leads_to_its_chapter_and_no_chapter_is_of_an_alert_that_is_gone() -> None:
    leads = re.findall(r"runbook_url: docs/runbook.md#(\S+)", ALERTS.read_text())
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(leads) == len(alerts())
    assert [lead for lead in leads if anchors.count(lead) != 1] == []
    assert {heading for heading in headings if heading.startswith("AiTicket")} == set(alerts())


def test_each_alert_says_what_it_means_where_to_look_what_to_do_and_how_to_see_that_it_worked() -> (
    None
):
    for alert in alerts():
        meaning, *steps = re.split(
            r"^\*\*(Look|Act|It worked)\*?\*?", section(alert), flags=re.MULTILINE
        )
        assert len(meaning.split()) >= 5, alert
        assert steps[::2] == ["Look", "Act", "It worked"], alert
        for name, text in zip(steps[::2], steps[1::2], strict=True):
            assert len(text.split()) >= 5, (alert, name)
            # What is to be done about a server, a disk or a collector is done there.
            assert name == "Act" or "```console\n$ " in text, (alert, name)
