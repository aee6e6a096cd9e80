"""The Debian package: built by Debian's tools, accepted by lintian, and through its whole life."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.project import ROOT
from tests.support.system.completion import completes, serves_zsh
from tests.support.system.container import container, need_container
from tests.support.system.debian_packages import need_packages, packages
from tests.support.system.service_host import (
    CONF,
    GIVING_UP_SECONDS,
    SETTINGS,
    ServiceHost,
    add_to_schema,
    break_start,
    operate_as_installed,
    queued_for_later,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

BUILD_SECONDS = 900
PYTHON = ("/usr/bin/env", "PYTHONPATH=/usr/lib/ai-ticket", "/usr/bin/python3")
LATER = 5004
"""Where no server listens at first."""


@pytest.fixture(scope="module")
def package(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package."""
    need_packages("package")
    output = tmp_path_factory.mktemp("deb")
    command = [ROOT / "ops" / "build-deb.sh", "--wheelhouse", wheelhouse, "--output", output]
    built = subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    [found] = output.glob("*.deb")
    return found


@pytest.fixture(scope="module")
def host(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceHost]:
    """A host with the package at hand, and what it depends on."""
    need_container()
    with container(tmp_path_factory.mktemp("host"), "deb") as box:
        shutil.copy(package, box.root / "root" / "package.deb")
        shutil.copy(broken(package, tmp_path_factory.mktemp("broken")), box.root / "root")
        yield ServiceHost(box, python=PYTHON)


def broken(package: Path, folder: Path) -> Path:
    """Make a package of a next version, which does not start, out of this one."""
    tree, result = folder / "tree", folder / "broken.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    site = tree / "usr" / "lib" / "ai-ticket" / "ai_ticket_daemon"
    add_to_schema(site)
    break_start(site)
    control = tree / "DEBIAN" / "control"
    control.write_text(
        re.sub(r"^Version: .*", "Version: 0.1.1", control.read_text(), flags=re.MULTILINE)
    )
    build: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-z1", "--build", tree, result]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return result


def test_all_that_debian_demands_of_a_build_is_in_the_list() -> None:
    """dpkg demands build-essential of every build, and no file says so."""
    control = (ROOT / "ops" / "debian" / "control").read_text()
    [depends] = re.findall(r"^Build-Depends: (.*)$", control, re.MULTILINE)
    demanded = {"build-essential", *(item.split()[0] for item in depends.split(","))}
    listed = {package.name for package in packages() if package.need in {"python", "package"}}
    assert demanded - {"debhelper-compat"} <= listed
    assert "debhelper" in listed


def test_lintian_finds_no_error(package: Path) -> None:
    command = ["lintian", "--fail-on", "error", "--suppress-tags", "unusual-interpreter"]
    checked = subprocess.run(
        [*command, str(package)], capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )

    assert checked.returncode == 0, checked.stdout
    assert [line for line in checked.stdout.splitlines() if line.startswith("E:")] == []


def test_its_whole_life(host: ServiceHost) -> None:
    """Installed, configured, upgraded, removed and purged, each time as its user expects."""
    host.box.run("dpkg", "--install", "/root/package.deb")
    assert host.shows("ActiveState") == "active"
    assert host.shows("ActiveState", "ai-ticket.socket") == "active"
    assert host.box.shell(f"stat --format '%U %G %a' {CONF}").strip() == "root ai-ticket 640"
    assert host.box.run("ai-ticket-daemon", "--version").stdout.startswith("ai-ticket-daemon 0.")
    host.until(lambda: host.get("/live").status == 200, "it serves")
    read = host.box.shell("head -1 /usr/share/doc/ai-ticket-daemon/runbook.md")
    assert read == "# Runbook\n"

    host.box.write(CONF, SETTINGS)
    host.systemctl("reload", "ai-ticket.service")
    copies_when_asked(host)
    pid, socket = host.pid, host.shows("InvocationID", "ai-ticket.socket")

    host.box.run("dpkg", "--install", "--force-confold", "/root/package.deb")
    assert host.pid not in {0, pid}
    assert host.shows("InvocationID", "ai-ticket.socket") == socket  # it was never closed
    assert host.box.shell(f"cat {CONF}") == SETTINGS
    assert host.systemctl("is-enabled", "ai-ticket-backup.timer").stdout.strip() == "enabled"
    assert host.shows("ActiveState", "ai-ticket-backup.timer") == "active"
    host.until(lambda: host.get("/live").status == 200, "it serves")

    host.start_kobold("--instant")
    host.until(lambda: host.get("/ready").status == 200, "the daemon is ready")
    operate_as_installed(host)
    goes_back_from_a_version_that_does_not_start(host)

    host.box.run("dpkg", "--remove", "ai-ticket-daemon")
    assert host.shows("ActiveState") == "inactive"
    assert host.get("/live").status == 0
    kept = host.box.shell("ls /var/lib/ai-ticket /etc/ai-ticket")
    assert "events.db" in kept
    assert "ai-ticket.conf" in kept

    assert host.shows("ActiveState", "ai-ticket-backup.timer") == "inactive"

    purged = host.box.run("dpkg", "--purge", "ai-ticket-daemon")
    assert "the copies in /var/backups/ai-ticket" in purged.stderr
    host.box.run("rm", "-r", "/var/backups/ai-ticket")
    left = host.box.shell(
        "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /root -prune -o "
        "-path /var/log -prune -o -path /var/cache/ldconfig -prune -o -name '*ai-ticket*' -print"
    )
    assert left.strip() == ""


def copies_when_asked(host: ServiceHost) -> None:
    """Complete words in the shell, and have the store copied by the timer that is off at first."""
    share = "/usr/share"
    assert completes(host.box, f"{share}/bash-completion/completions/ai-ticketctl", "backu") == [
        "backup"
    ]
    assert serves_zsh(host.box, f"{share}/zsh/vendor-completions/_ai-ticketctl")
    is_enabled = host.systemctl("is-enabled", "ai-ticket-backup.timer", check=False)
    assert is_enabled.stdout.strip() == "disabled"
    assert host.shows("ActiveState", "ai-ticket-backup.timer") == "inactive"

    host.systemctl("enable", "--now", "ai-ticket-backup.timer")
    host.systemctl("start", "ai-ticket-backup.service")
    assert host.box.shell("ls /var/backups/ai-ticket").count("events-") == 1


def goes_back_from_a_version_that_does_not_start(host: ServiceHost) -> None:
    """Install the next version, and then the one from before as docs/upgrading.md says."""
    event_ids = queued_for_later(host, LATER)
    conf = host.box.shell(f"cat {CONF}")

    # Five starts in vain show what thirty do.
    host.drop_in("[Unit]\nStartLimitBurst=5\n")
    host.systemctl("reset-failed", "ai-ticket.service")
    failed = host.box.run("dpkg", "--install", "/root/broken.deb", check=False)
    assert failed.returncode == 1
    assert "this version does not start" in failed.stderr
    assert "this version is broken" in host.journal("AI_TICKET_LOG=failed")[-1]["MESSAGE"]
    host.until(
        lambda: host.shows("ActiveState") == "failed",
        "systemd has given up",
        GIVING_UP_SECONDS,
    )
    host.box.shell("rm -r /run/systemd/system/ai-ticket.service.d; systemctl daemon-reload")

    host.box.run("dpkg", "--install", "/root/package.deb")
    assert host.shows("ActiveState") == "active"
    assert host.shows("ActiveState", "ai-ticket.socket") == "active"
    assert host.box.shell(f"cat {CONF}") == conf
    host.start_kobold("--instant", port=LATER)
    host.until(lambda: states(host, event_ids) == ["succeeded"], "every event has ended")

    host.box.write(CONF, "new_key = 1\n" + conf)
    pid = host.pid
    refused = host.box.run("dpkg", "--install", "/root/package.deb", check=False)
    assert refused.returncode == 1
    assert f"{CONF}:1: new_key" in refused.stderr
    assert "what runs goes on" in refused.stderr
    assert (host.pid, host.get("/live").status) == (pid, 200)
    host.box.write(CONF, conf)
    host.box.run("dpkg", "--configure", "ai-ticket-daemon")
    assert host.pid not in {0, pid}
