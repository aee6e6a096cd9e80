"""The timer that copies the store: off at first, then a copy each night; the last are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.system.service_host import submit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.system.service_host import ServiceHost

pytestmark = pytest.mark.system

CTL = "/opt/ai-ticket/venv/bin/ai-ticketctl"
TIMER = "ai-ticket-backup.timer"
COPIER = "ai-ticket-backup.service"
COPIES = "/var/backups/ai-ticket"
DAYS = [f"events-202601{day:02d}T000000Z.db" for day in range(1, 8)]
DUE_NOW = """\
[Timer]
OnCalendar=
OnActiveSec=1ms
RandomizedDelaySec=0
AccuracySec=1ms
"""


@pytest.fixture
def copied_host(host: ServiceHost) -> Iterator[ServiceHost]:
    """The host, without copies and with the timer off, before the test and after it."""
    clean = f"systemctl disable --now {TIMER}; systemctl stop {COPIER}; rm -rf {COPIES}"
    host.box.shell(clean)
    yield host
    host.box.shell(clean)


def copies(host: ServiceHost) -> list[str]:
    return host.box.shell(f"ls {COPIES}").split()


def test_nobody_has_copies_who_has_not_asked_for_them(host: ServiceHost) -> None:
    assert host.systemctl("is-enabled", TIMER, check=False).stdout.strip() == "disabled"
    assert host.systemctl("is-active", TIMER, check=False).stdout.strip() == "inactive"
    host.box.run("test", "!", "-e", COPIES)


def test_once_enabled_it_is_due_each_night(copied_host: ServiceHost) -> None:
    copied_host.systemctl("enable", "--now", TIMER)

    assert copied_host.shows("ActiveState", TIMER) == "active"
    # Midnight by the clock of the host, and not more than the half hour that spreads hosts later.
    assert " 00:" in copied_host.shows("NextElapseUSecRealtime", TIMER)


def test_a_copy_replaces_the_oldest_of_seven_and_can_be_put_in_place(
    copied_host: ServiceHost,
) -> None:
    host = copied_host
    [event_id] = submit(host, 1)
    host.box.shell(f"mkdir -m 0700 {COPIES}; cd {COPIES}; touch {' '.join(DAYS)} notes")
    host.drop_in(DUE_NOW, TIMER)

    host.systemctl("enable", "--now", TIMER)
    host.until(lambda: DAYS[0] not in copies(host), "a copy was made and the oldest deleted")

    host.until(lambda: host.shows("ActiveState", COPIER) == "inactive", "the copier is done")
    assert host.shows("Result", COPIER) == "success"
    kept = copies(host)
    [newest] = set(kept) - {*DAYS, "notes"}
    assert kept == sorted([*DAYS[1:], newest, "notes"])
    assert host.box.shell(f"stat --format '%U %a' {COPIES} {COPIES}/{newest}").split() == [
        "root", "700", "root", "600",
    ]  # fmt: skip
    said = " ".join(line["MESSAGE"] for line in host.journal(f"_SYSTEMD_UNIT={COPIER}"))
    assert f"{COPIES}/{newest}" in said
    assert f"{COPIES}/{DAYS[0]}" in said

    later = submit(host, 1)[0]
    host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")
    host.box.run(CTL, "restore", f"{COPIES}/{newest}")
    host.systemctl("start", "ai-ticket.socket", "ai-ticket.service")
    host.until(lambda: host.get("/ready").status == 200, "it serves the restored store")
    assert host.get(f"/event/{event_id}").status == 200
    assert host.get(f"/event/{later}").status == 404


def test_a_copy_that_cannot_be_made_leaves_the_others_and_fails_the_unit(
    copied_host: ServiceHost,
) -> None:
    host = copied_host
    host.box.shell(f"mkdir -m 0700 {COPIES}; cd {COPIES}; touch {' '.join(DAYS)} {DAYS[0]}-more")
    host.systemctl("stop", "ai-ticket.socket", "ai-ticket.service")

    assert host.systemctl("start", COPIER, check=False).returncode != 0

    assert host.shows("Result", COPIER) == "exit-code"
    assert copies(host) == sorted([*DAYS, f"{DAYS[0]}-more"])
    said = host.journal(f"_SYSTEMD_UNIT={COPIER}")[-1]["MESSAGE"]
    assert "the daemon is not running here" in said


def test_another_place_needs_to_be_opened_for_it(copied_host: ServiceHost) -> None:
    host = copied_host
    host.box.shell("rm -rf /srv/copies; mkdir -m 0700 /srv/copies")
    place = "[Service]\nEnvironment=BACKUP_DIRECTORY=/srv/copies BACKUP_KEEP=1\n"
    host.drop_in(place, COPIER)

    assert host.systemctl("start", COPIER, check=False).returncode != 0
    assert "Read-only file system" in host.journal(f"_SYSTEMD_UNIT={COPIER}")[-1]["MESSAGE"]

    host.drop_in(place + "ReadWritePaths=/srv/copies\n", COPIER)
    host.systemctl("start", COPIER)
    assert len(host.box.shell("ls /srv/copies").split()) == 1
