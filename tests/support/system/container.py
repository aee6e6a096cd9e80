"""A Debian in a container with a systemd of its own: what the tests of the service run in.

The base is made once by mmdebstrap (some 20 seconds) and kept in ``.cache/system-tests``. A
container writes into memory above it, has no network but its own loopback, and leaves nothing
behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.project import ROOT
from tests.support.system.debian_packages import cannot_run, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = ROOT / ".cache" / "system-tests"
SUITE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,curl"
CGROUPS = Path("/sys/fs/cgroup")

BUILD_SECONDS = 600
BOOT_SECONDS = 60
COMMAND_SECONDS = 900
"""A guard against hanging, for a machine that is busy, too."""
LOOK_SECONDS = 0.05

ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "SYSTEMD_PAGER=cat",
    "SYSTEMD_COLORS=0",
)

INIT = """\
#!/bin/sh
# systemd-nspawn mounts the controllers of cgroup v1 read-only; writable, MemoryMax= is real.
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  for controller in memory pids cpu cpuacct; do
    [ ! -d /sys/fs/cgroup/$controller ] ||
      mount -o remount,bind,rw,nosuid,nodev,noexec /sys/fs/cgroup/$controller
  done
fi
exec /lib/systemd/systemd "$@"
"""

# In a group of its own, so that limits have something to hang on; the rest is an exec, so that the
# process this starts is systemd-nspawn itself, which ends in good order when the test does.
ENTER = """\
for tree in "$2" "$2"/*/; do
  [ -e "$tree/cgroup.procs" ] || continue
  [ "$tree" = "$2" ] || [ ! -e "$2/cgroup.controllers" ] || continue
  mkdir -p "$tree/$1" || continue
  for file in cpuset.cpus cpuset.mems; do
    [ ! -e "$tree/$file" ] || cat "$tree/$file" >"$tree/$1/$file"
  done
  echo $$ >"$tree/$1/cgroup.procs"
done 2>/dev/null
shift 2
exec unshare --mount --propagation private setpriv --pdeathsig TERM systemd-nspawn "$@"
"""


@dataclass(frozen=True)
class Container:
    """A container that is up; ``leader`` is its first process, as the host counts."""

    leader: int

    @property
    def root(self) -> Path:
        """Where the host sees the container's files."""
        return Path(f"/proc/{self.leader}/root")

    def run(
        self, *command: str | Path, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as its root."""
        done = subprocess.run(
            self.enter(*command),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check:
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command in the container, for the caller to wait for."""
        return subprocess.Popen(
            self.enter(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def enter(self, *command: str | Path) -> list[str]:
        """Return the command of the host that is ``command`` in the container."""
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        enter = ("nsenter", "--target", str(self.leader), *spaces, "--")
        return [*enter, "/usr/bin/env", "-i", *ENVIRONMENT, *map(str, command)]

    def shell(self, script: str) -> str:
        """Run a script of the shell and return what it printed."""
        return self.run("sh", "-euc", script).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Replace a file of the container, at once."""
        # Through the container's own eyes: its mounts and its symbolic links are not the host's.
        draft = f"{path}.draft"
        self.run(
            "sh", "-euc", f"mkdir -p $(dirname {path}); cat >{draft}; chmod {mode:o} {draft}; "
            f"mv {draft} {path}",
            stdin=text,
        )  # fmt: skip


def why_not() -> str:
    """Return why no container can run here, in one sentence; empty if one can."""
    if os.geteuid() != 0:
        return "a container needs root; the rest of the tests does not"
    if lacking := missing("containers"):
        return lacking
    mount = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "x", "/mnt"]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        return "mounting is not allowed here (a container without CAP_SYS_ADMIN?)"
    trees = [tree for tree in (CGROUPS, CGROUPS / "systemd") if (tree / "cgroup.procs").exists()]
    if not any(os.access(tree, os.W_OK) for tree in trees):
        return "there is no writable cgroup hierarchy"
    return ""


def need_container() -> None:
    """Skip the test, telling why, where no container can run; in CI that is a failure."""
    reason = why_not()
    if reason:
        cannot_run(reason)


def base_system() -> Path:
    """Return the directory of the base system; made now, if it has not been."""
    base = CACHE / f"{SUITE}-{PACKAGES.replace(',', '-')}"
    with alone("base"):
        if not base.exists():
            _build_base(base)
    return base


def _build_base(base: Path) -> None:
    draft = CACHE / f"draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
            ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}",
             SUITE, str(draft)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS,
            check=False,
        )  # fmt: skip
    assert made.returncode == 0, made.stderr
    # Without it each boot would count as the first one.
    subprocess.run(["systemd-machine-id-setup", f"--root={draft}"], check=True)
    (draft / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    init = draft / "sbin" / "container-init"
    init.write_text(INIT)
    init.chmod(0o755)
    draft.rename(base)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other test processes from building the same thing for the length of a block."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def container(folder: Path, name: str) -> Iterator[Container]:
    """Run a container for the length of a block; what its console says is in ``folder``."""
    group = f"{_own_groups()}{name}"
    nspawn = [
        "--quiet", f"--directory={base_system()}", "--volatile=overlay",
        f"--machine={group}", "--hostname=box",
        "--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3", "--console=read-only",
        "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--private-network",
        "/sbin/container-init",
    ]  # fmt: skip
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            ["bash", "-c", ENTER, "bash", group, str(CGROUPS), *nspawn],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
        )  # fmt: skip
    try:
        yield _booted(process, folder / "console")
    finally:
        leader = _leader(process.pid)
        if leader is None:
            process.terminate()
        else:  # with its first process all others in there end, and systemd-nspawn after them
            os.kill(leader, signal.SIGKILL)
        process.wait(timeout=BOOT_SECONDS)
        _remove_groups(group)


def _booted(process: subprocess.Popen[bytes], console: Path) -> Container:
    give_up_at = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        leader = _leader(process.pid)
        if leader is not None:
            box = Container(leader)
            state = box.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in {"running", "degraded"}:
                return box
        time.sleep(LOOK_SECONDS)
    pytest.fail(f"the container has not come up:\n{console.read_text(errors='replace')}")


def _leader(nspawn: int) -> int | None:
    """Return the child of systemd-nspawn that is the first process inside."""
    try:
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            innermost = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            name = Path(f"/proc/{child}/comm").read_text().strip()
            if innermost.split()[-1] == "1" and name == "systemd":
                return int(child)
    except (OSError, StopIteration):
        pass  # it is just starting, or gone
    return None


def containers_seconds(groups: Path = CGROUPS) -> float:
    """Return how long processors have worked in the containers of this process that run."""
    own, nanoseconds = _own_groups(), 0
    for usage in groups.glob(f"cpuacct/{own}*/cpuacct.usage"):  # cgroup v1
        nanoseconds += int(usage.read_text())
    for stat in groups.glob(f"{own}*/cpu.stat"):  # cgroup v2
        told = dict(line.split() for line in stat.read_text().splitlines())
        nanoseconds += 1000 * int(told["usage_usec"])
    return nanoseconds / 1e9


def _own_groups() -> str:
    """Return what the names of the cgroups of this process's containers begin with."""
    return f"ai-ticket-test-{os.getpid()}-"


def _remove_groups(group: str) -> None:
    for tree in (CGROUPS, *CGROUPS.glob("*/")):
        for path in sorted(tree.glob(f"{group}/**/"), reverse=True):
            try:
                path.rmdir()
            except OSError:
                continue  # something in it has not quite ended; an empty group costs nothing
