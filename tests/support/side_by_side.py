"""Which tests go to one process together, and which groups begin first.

A group is a file, or the files that share an installed host. Those that take longest begin first,
so that at the end only short ones are left and no process stands idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOST = "host"
ON_THE_HOST = frozenset(
    {
        "tests/attacks/test_systemd_attacks.py",
        "tests/system/test_clock_of_service.py",
        "tests/system/test_nightly_copies.py",
        "tests/system/test_systemd_restarts.py",
        "tests/system/test_systemd_service.py",
        "tests/system/test_upgrades.py",
    }
)
"""The files whose tests share one installed host, which takes half a minute to make."""
APART = frozenset(
    {
        "tests/attacks/test_fuzz_http.py",
        "tests/attacks/test_fuzz_servers.py",
        "tests/attacks/test_odd_servers.py",
    }
)
"""The files whose tests take long, and share nothing: each is a group of its own."""
SECONDS: Mapping[str, int] = {
    HOST: 600,
    "tests/system/test_debian_package.py": 330,
    "tests/drills/test_on_host.py": 210,
    "tests/attacks/test_schemathesis.py": 170,
    "tests/system/test_crash.py": 165,
    "tests/system/test_docs.py": 160,
    "tests/attacks/test_fuzz_http.py": 145,
    "tests/system/test_ctl_process.py": 130,
    "tests/attacks/test_fuzz_control.py": 125,
    "tests/integration/test_fault_table.py": 115,
    "tests/attacks/test_clocks.py": 110,
    "tests/attacks/test_bodies.py": 105,
    "tests/drills/test_keeping.py": 95,
    "tests/drills/test_servers.py": 95,
    "tests/system/test_real_servers.py": 95,
    "tests/system/test_ops_scripts.py": 90,
    "tests/system/test_quickstart.py": 75,
    "tests/attacks/test_memory.py": 70,
    "tests/drills/test_response.py": 70,
    "tests/attacks/test_loop_turns.py": 60,
    "tests/attacks/test_fuzz_servers.py": 50,
    "tests/drills/test_troubleshooting.py": 50,
    "tests/integration/test_control.py": 50,
    "tests/integration/test_odd_answers.py": 50,
    "tests/attacks/test_odd_servers.py": 40,
    "tests/system/test_systemd_protocol.py": 40,
    "tests/system/test_trace_restart.py": 40,
    "tests/drills/test_process_faults.py": 30,
    "tests/integration/test_daemon.py": 30,
    "tests/integration/test_http_daemon.py": 30,
    "tests/system/test_prometheus.py": 30,
    "tests/attacks/test_fuzz_conf.py": 20,
    "tests/attacks/test_watch.py": 20,
    "tests/integration/test_backends_return.py": 20,
    "tests/system/test_process.py": 20,
    "tests/system/test_standard_streams.py": 20,
}
"""About how long the tests of a group take, one of them where they are apart."""


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a process one group of tests at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """Return the group that a test belongs to."""
    file = nodeid.partition("::")[0]
    if file in ON_THE_HOST:
        return HOST
    return nodeid if file in APART else file


def place(nodeid: str, *, system: bool) -> tuple[int, bool]:
    """Return what to sort a test by: the longest first, then what runs the real process."""
    file = nodeid.partition("::")[0]
    return -SECONDS.get(HOST if file in ON_THE_HOST else file, 0), not system


def unknown_files(exists: Callable[[str], bool]) -> list[str]:
    """Return the files named here that there are not."""
    named = {*ON_THE_HOST, *APART, *SECONDS} - {HOST}
    return sorted(file for file in named if not exists(file))
