"""Upgrades by ops/install.sh and back again: what a schema, a fault and an operator can do to them.

The next version adds to the store's schema; the broken one does, too, and then does not start.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.store.sqlite.schema import MIGRATIONS
from tests.support.project import ROOT
from tests.support.system.service_host import (
    CHECKOUT,
    CONF,
    GIVING_UP_SECONDS,
    LONG_PAUSE_SECONDS,
    WHEELHOUSE,
    build_wheel,
    copy_checkout,
    operate_as_installed,
    queued_for_later,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.system.service_host import ServiceHost

pytestmark = pytest.mark.system

CLIENTS = 8
NEXT, BROKEN = "/root/next", "/root/broken"
LATER = 5004
"""Where no server listens until a test starts one."""


@pytest.fixture(scope="module")
def broken(installed_host: ServiceHost, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkout of a version that does not start, on the host."""
    folder: Path = tmp_path_factory.mktemp("broken")
    checkout = folder / "checkout"
    copy_checkout(checkout, version="0.1.2", broken=True)
    build_wheel(checkout, folder)
    root = installed_host.box.root
    for wheel in folder.glob("ai_ticket_daemon-0.1.2-*"):
        shutil.move(wheel, root / WHEELHOUSE.lstrip("/"))
    shutil.move(checkout, root / BROKEN.lstrip("/"))
    return BROKEN


def version(host: ServiceHost) -> str:
    return host.box.run("ai-ticket-daemon", "--version").stdout.split()[-1]


def audited(host: ServiceHost) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.box.run("ai-ticketctl", "--json", "audit").stdout)
    return found


def schema(host: ServiceHost) -> int:
    ask = (
        "import sqlite3\n"
        "file = sqlite3.connect('/var/lib/ai-ticket/events.db')\n"
        "print(*file.execute('PRAGMA user_version').fetchone())"
    )
    return int(host.box.run(*host.python, "-c", ask).stdout)


def test_an_upgrade_that_does_not_start_is_taken_back_and_loses_no_event(
    host: ServiceHost, broken: str
) -> None:
    before = host.box.shell("readlink /opt/ai-ticket/venv; cat /etc/systemd/system/ai-ticket*")
    earlier = audited(host)
    event_ids = queued_for_later(host, LATER)
    socket = host.shows("InvocationID", "ai-ticket.socket")

    upgrade = [f"{broken}/ops/install.sh", "--wheelhouse", WHEELHOUSE]
    failed = host.box.run(*upgrade, check=False)

    assert failed.returncode == 1
    assert "version 0.1.2 did not start" in failed.stderr
    assert "the one before is back in place" in failed.stderr
    assert "this version is broken" in host.journal("AI_TICKET_LOG=failed")[-1]["MESSAGE"]
    assert host.shows("ActiveState") == "active"
    assert host.shows("InvocationID", "ai-ticket.socket") == socket  # clients waited in it
    after = host.box.shell("readlink /opt/ai-ticket/venv; cat /etc/systemd/system/ai-ticket*")
    assert after == before
    assert "0.1.2" not in host.box.shell("ls /opt/ai-ticket/releases")
    assert schema(host) == len(MIGRATIONS) + 1  # the broken version had got so far

    host.start_kobold("--instant", port=LATER)
    host.until(lambda: states(host, event_ids) == ["succeeded"], "every event has ended")
    audit = audited(host)
    accepted = earlier["accepted"] + len(event_ids)
    assert (audit["accepted"], audit["difference"], audit["problems"]) == (accepted, 0, [])


def test_an_upgrade_is_one_restart_can_be_taken_back_later_and_fails_no_request(
    host: ServiceHost,
) -> None:
    back = (f"{CHECKOUT}/ops/install.sh", "--rollback")
    assert version(host) == "0.1.0"
    host.box.shell(f"echo '# mine' >>{CONF}")
    conf = host.box.shell(f"cat {CONF}")
    starts = len(host.journal("AI_TICKET_LOG=started"))
    with host.load(CLIENTS, LONG_PAUSE_SECONDS) as load:
        assert "upgraded" in host.install(checkout=NEXT)
        assert version(host) == "0.1.1"
        started = host.journal("AI_TICKET_LOG=started")[starts:]
        assert ["version=0.1.1" in line["MESSAGE"] for line in started] == [True]
        assert host.box.shell(f"cat {CONF}") == conf
        event_id = host.post({"content": "a ticket", "max_tokens": 4}).json["event_id"]

        host.configure("new_key = 1\n")  # as if only the next version knew it
        refused = host.box.run(*back, check=False)
        assert refused.returncode == 1
        assert f"{CONF}:1: new_key" in refused.stderr
        assert version(host) == "0.1.1"

        host.configure()
        said = host.box.run(*back).stdout

    assert "0.1.0-" in said
    assert not [line for line in host.journal("UNIT=ai-ticket.service") if timed_out(line)]
    assert version(host) == "0.1.0"
    assert load.seen["failures"] == []
    assert load.seen["completions"] > CLIENTS
    assert schema(host) == len(MIGRATIONS) + 1
    assert states(host, [event_id]) == ["succeeded"]  # by the version that is gone
    started = [line["MESSAGE"] for line in host.journal("AI_TICKET_LOG=started")[-2:]]
    assert ["version=0.1.1" in started[0], "version=0.1.0" in started[1]] == [True, True]


def test_a_store_that_is_refused_is_replaced_by_the_backup_as_the_documents_say(
    host: ServiceHost,
) -> None:
    event_id = host.post({"content": "a ticket", "max_tokens": 4}).json["event_id"]
    for command in commands("Before"):
        host.box.shell(command)
    spoil = (
        "import sqlite3\n"
        "file = sqlite3.connect('/var/lib/ai-ticket/events.db', isolation_level=None)\n"
        "file.execute('PRAGMA user_version = 99')\n"
        "file.execute('UPDATE note SET value = 99')"
    )
    host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
    with store_replaced_at_last(host):
        host.box.run(*host.python, "-c", spoil)
        assert host.systemctl("start", "ai-ticket.service", check=False).returncode != 0
        # From the journal: systemd starts it again at once, and then shows no exit code.
        exits = [line["MESSAGE"] for line in host.journal("UNIT=ai-ticket.service")]
        assert "status=69" in [said for said in exits if "Main process exited" in said][-1]
        refused = host.journal("AI_TICKET_LOG=unavailable")[-1]["MESSAGE"]
        assert "the store was written by a newer version" in refused

        for command in commands("The older version refuses the store"):
            host.box.shell(command)

    assert states(host, [event_id]) == ["succeeded"]
    assert host.box.shell("ls /var/lib/ai-ticket/events.db.before-*")


@contextmanager
def store_replaced_at_last(host: ServiceHost) -> Iterator[None]:
    """Leave no store behind that the daemon refuses: no later test could start it."""
    try:
        yield
    except BaseException:
        host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
        host.box.shell("rm -f /var/lib/ai-ticket/events.db*")
        raise


def timed_out(line: dict[str, Any]) -> bool:
    """Whether systemd says here that it waited for something in vain."""
    return "timed out" in str(line["MESSAGE"])


def commands(heading: str) -> list[str]:
    """Return the commands under a heading of docs/upgrading.md, for root."""
    page = (ROOT / "docs" / "upgrading.md").read_text()
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\$ (?:sudo )?(.*)$", section, flags=re.MULTILINE)


def test_a_daemon_that_crashes_too_often_is_brought_back_as_the_documents_say(
    host: ServiceHost,
) -> None:
    host.drop_in("[Service]\nExecStart=\nExecStart=/bin/false\n")
    host.systemctl("restart", "ai-ticket.service", check=False)
    host.until(
        lambda: host.shows("ActiveState") == "failed", "systemd has given up", GIVING_UP_SECONDS
    )
    journal = "\n".join(line["MESSAGE"] for line in host.journal("-u", "ai-ticket"))
    assert "Start request repeated too quickly." in journal
    assert host.get("/live").status == 0  # and the next client makes systemd give up the socket
    host.until(lambda: host.shows("ActiveState", "ai-ticket.socket") == "failed", "it has")
    assert host.shows("Result", "ai-ticket.socket") == "service-start-limit-hit"

    host.box.shell("rm -r /run/systemd/system/ai-ticket.service.d; systemctl daemon-reload")
    bring_back(host)


def test_a_service_without_its_credentials_is_brought_back_as_the_documents_say(
    host: ServiceHost,
) -> None:
    host.systemctl("stop", "ai-ticket.service")
    host.box.shell("rm -r /etc/ai-ticket/credentials")

    assert host.systemctl("start", "ai-ticket.service", check=False).returncode != 0
    host.until(
        lambda: host.shows("ActiveState") == "failed", "systemd has given up", GIVING_UP_SECONDS
    )
    assert "status=243/CREDENTIALS" in host.systemctl("status", "ai-ticket", check=False).stdout

    host.box.run("systemd-tmpfiles", "--create")
    bring_back(host)


def bring_back(host: ServiceHost) -> None:
    """Do what docs/troubleshooting.md says once the cause is mended."""
    host.systemctl("reset-failed", "ai-ticket.service")
    host.systemctl("start", "ai-ticket.service")
    assert host.get("/live").status == 200
    assert host.shows("ActiveState", "ai-ticket.socket") == "active"


def test_the_operator_is_let_in_and_others_are_told_why_not(host: ServiceHost) -> None:
    operate_as_installed(host)
